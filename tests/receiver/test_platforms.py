import pytest

from receiver.platforms import is_on_volume, platform_of

MOUNTS = """\
overlay / overlay rw,relatime 0 0
proc /proc proc rw 0 0
tmpfs /dev/shm tmpfs rw 0 0
/dev/vdc /data ext4 rw,relatime 0 0
/dev/vdd /with\\040space ext4 rw 0 0
tmpfs /data/cache tmpfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "lasts"),
    [
        ("/data/backstop.db", True),
        ("/data/deep/er/backstop.db", True),
        ("/with space/backstop.db", True),
        ("/data/../data/backstop.db", True),
        ("/database/backstop.db", False),
        ("/app/backstop.db", False),
        ("/data/../app/backstop.db", False),
        ("/dev/shm/backstop.db", False),
        ("/data/cache/backstop.db", False),
    ],
)
def test_a_file_outlives_the_machine_on_a_mounted_disk_alone(path, lasts):
    assert is_on_volume(path, MOUNTS) is lasts


def test_without_a_list_of_mounts_nothing_is_known_to_last():
    assert not is_on_volume("/data/backstop.db", "")


def test_elsewhere_there_is_no_platform():
    assert platform_of({"HOME": "/root"}) is None


@pytest.mark.parametrize(
    ("environ", "name", "proxies", "public_url"),
    [
        ({"DYNO": "web.1"}, "Heroku", 1, None),
        ({"DYNO": "web.1", "HEROKU_APP_DEFAULT_DOMAIN_NAME": "x-1.herokuapp.com"}, "Heroku", 1, "https://x-1.herokuapp.com"),
        ({"FLY_APP_NAME": "x"}, "Fly", 2, "https://x.fly.dev"),
    ],
)  # fmt: skip
def test_it_tells_what_the_platform_says(environ, name, proxies, public_url):
    platform = platform_of(environ)
    assert (platform.name, platform.proxies, platform.public_url) == (name, proxies, public_url)


def test_render_tells_its_public_address_and_has_volumes():
    render = platform_of({"RENDER": "true", "RENDER_EXTERNAL_URL": "https://backstop.onrender.com"})
    assert (render.name, render.public_url, render.has_volumes) == (
        "Render",
        "https://backstop.onrender.com",
        True,
    )
