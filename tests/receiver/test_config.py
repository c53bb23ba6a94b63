import re
from datetime import timedelta
from pathlib import Path

import pytest
from dotenv import dotenv_values

from receiver import config
from receiver.api_keys import ApiKey
from receiver.config import Settings, SettingsError, overridden

REQUIRED = {"CALLBACK_TOKEN": "callback-secret-1", "API_KEY": "api-key-that-is-secret"}
ROOT = Path(__file__).parents[2]


def read(**variables: str) -> Settings:
    return Settings.from_env(REQUIRED | variables)


def test_it_needs_only_the_two_secrets():
    settings = read()
    assert settings.database_url == "sqlite:///backstop.db"
    assert settings.callback_tokens == ("callback-secret-1",)
    assert settings.reconcile_grace == timedelta(seconds=30)
    assert settings.web_concurrency == 2
    assert settings.confirm_callbacks is True


def test_it_reports_every_problem_at_once_and_no_value():
    with pytest.raises(SettingsError) as stopped:
        Settings.from_env(
            {
                "API_KEY": "two words-hidden",
                "DATABASE_URL": "mysql://user:hidden@host/name",
                "PUBLIC_URL": "hidden.example.com",
                "RECONCILE_GRACE": "-1",
                "RECONCILE_BATCH_SIZE": "0",
                "CONFIRM_CALLBACKS": "perhaps",
                "PORT": "http",
                "ACEDATACLOUD_API_BASE_URL": "ftp://hidden",
            }
        )
    message = str(stopped.value)
    for name in ("CALLBACK_TOKEN", "API_KEY", "DATABASE_URL", "PUBLIC_URL", "RECONCILE_GRACE", "PORT"):
        assert message.count(f"  - {name} ") == 1
    assert "RECONCILE_BATCH_SIZE must be a whole number from 1 to 200" in message
    assert "CONFIRM_CALLBACKS must be true or false" in message
    assert "hidden" not in message


def test_it_stops_a_process_without_a_traceback():
    assert issubclass(SettingsError, SystemExit)


@pytest.mark.parametrize("name", ["RECONCILE_INTERVAL", "RECONCILE_LEASE"])
def test_what_would_stop_all_look_ups_is_refused(name: str):
    assert getattr(read(**{name: "86400"}), name.lower()) == timedelta(days=1)
    with pytest.raises(SettingsError, match=f"{name} must be a number of seconds from 0 to 86400"):
        read(**{name: "1e9"})


@pytest.mark.parametrize("name", ["RECONCILE_GRACE", "RECONCILE_INTERVAL", "RECONCILE_LEASE"])
def test_zero_is_a_number_of_seconds(name: str):
    assert getattr(read(**{name: "0"}), name.lower()) == timedelta(0)


def test_tasks_are_kept_at_least_as_long_as_their_deliveries():
    assert read().task_retention is None
    assert read(TASK_RETENTION_DAYS="30").task_retention == timedelta(days=30)
    assert read(TASK_RETENTION_DAYS="7", RETENTION_DAYS="7").task_retention == timedelta(days=7)
    with pytest.raises(SettingsError, match="TASK_RETENTION_DAYS is 29, but RETENTION_DAYS is 30"):
        read(TASK_RETENTION_DAYS="29")
    with pytest.raises(SettingsError, match="TASK_RETENTION_DAYS must be a whole number from 1"):
        read(TASK_RETENTION_DAYS="0")


@pytest.mark.parametrize("text", ["nan", "inf", "1e400", "ten", "1e10", "--1"])
def test_it_refuses_what_is_no_number_of_seconds(text: str):
    with pytest.raises(SettingsError, match="RECONCILE_INTERVAL must be a number of seconds"):
        read(RECONCILE_INTERVAL=text)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///a.db",
        "sqlite:////var/lib/a.db",
        "postgres://u:p@h:5/n",
        "postgresql://u:p%40@/n?host=/tmp",
        "postgresql://u:p@%2Fvar%2Frun%2Fpostgresql/my%20ledger",
        "postgresql://u:p@a:5432,b:5432/n?target_session_attrs=read-write",
        "postgresql://u:p@h:6543/n?pgbouncer=true",
    ],
)
def test_it_takes_the_database_urls_of_platforms(url: str):
    assert read(DATABASE_URL=url).database_url == url


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite://a.db",
        "postgresql://host",
        "x",
        "postgres://h:p/n",
        "postgres://u@h/n?nonsense=1",
    ],
)
def test_it_refuses_a_database_url_that_would_lose_data_or_fail_later(url: str):
    with pytest.raises(SettingsError, match="DATABASE_URL"):
        read(DATABASE_URL=url)


@pytest.mark.parametrize(
    ("variables", "each"),
    [
        ({}, 6),
        ({"WEB_CONCURRENCY": "4"}, 3),
        ({"WEB_CONCURRENCY": "8"}, 2),
        ({"RECONCILE_IN_WEB": "true", "ACEDATACLOUD_API_TOKEN": "t", "WEB_CONCURRENCY": "1"}, 19),
        ({"DATABASE_CONNECTIONS": "5", "WEB_CONCURRENCY": "1"}, 2),
    ],
)
def test_connections_are_shared_out_and_one_is_left(variables: dict[str, str], each: int):
    assert read(DATABASE_URL="postgresql://u:p@h/n", **variables).connections_each == each


def test_it_refuses_fewer_connections_than_the_processes_need():
    with pytest.raises(SettingsError, match=r"4 web process.* and a reconciler need 11; raise it"):
        read(DATABASE_URL="postgresql://u:p@h/n", WEB_CONCURRENCY="4", DATABASE_CONNECTIONS="10")
    assert read(DATABASE_CONNECTIONS="1").database_connections == 1  # SQLite needs none of them


def test_a_direct_url_is_one_of_postgresql():
    url = "postgresql://u:p@h/n"
    assert read(DATABASE_URL=url, DIRECT_DATABASE_URL=url).direct_database_url == url
    for bad in ("sqlite:///a.db", "postgresql://host", "postgresql://u:p@h:port/n"):
        with pytest.raises(SettingsError, match="DIRECT_DATABASE_URL"):
            read(DATABASE_URL=url, DIRECT_DATABASE_URL=bad)
    with pytest.raises(SettingsError, match="DIRECT_DATABASE_URL must lead to the database of DATABASE_URL"):
        read(DIRECT_DATABASE_URL=url)


def test_tokens_are_separated_by_commas_while_rotating():
    assert read(CALLBACK_TOKEN="new-0123456789ab , old-0123456789ab,").callback_tokens == (
        "new-0123456789ab",
        "old-0123456789ab",
    )


@pytest.mark.parametrize("token", ["a/b", "a?b", "a b", "a#b", "%41", "ü", ","])
def test_a_callback_token_must_fit_into_a_url(token: str):
    with pytest.raises(SettingsError, match="CALLBACK_TOKEN"):
        read(CALLBACK_TOKEN=token)


def test_reconciling_in_the_web_process_needs_the_token():
    with pytest.raises(SettingsError, match="RECONCILE_IN_WEB=true needs it"):
        read(RECONCILE_IN_WEB="true")


def test_a_blank_variable_counts_as_not_set():
    assert read(PORT=" ", PUBLIC_URL="").port == 8000


def test_secrets_stay_out_of_its_repr():
    settings = read(ACEDATACLOUD_API_TOKEN="api-token-secret", DATABASE_URL="postgresql://u:secret@h/n")
    assert "secret" not in repr(settings)


def test_a_dotenv_file_is_read_and_the_environment_beats_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(
        "CALLBACK_TOKEN=token-of-the-file  # a comment\nAPI_KEY=key-from-the-file\nPORT=1234\n"
    )
    monkeypatch.setenv("API_KEY", "key-from-the-environment")
    for name in ("CALLBACK_TOKEN", "PORT"):
        monkeypatch.delenv(name, raising=False)
    settings = Settings.from_env()
    assert (settings.callback_tokens, settings.port) == (("token-of-the-file",), 1234)
    assert [key.key for key in settings.api_keys] == ["key-from-the-environment"]


def test_an_empty_variable_does_not_hide_what_the_dotenv_file_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(
        f"CALLBACK_TOKEN={'a' * 16}\nAPI_KEY={'b' * 16}\nPUBLIC_URL=https://x.example.com\n"
    )
    monkeypatch.setenv("PUBLIC_URL", "")
    assert Settings.from_env().public_url == "https://x.example.com"


def test_a_dotenv_file_that_is_no_utf_8_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("API_KEY=key-from-the-file", encoding="utf-16")
    with pytest.raises(SettingsError, match=r"\.env is not UTF-8"):
        Settings.from_env()


def test_a_dotenv_file_that_cannot_be_read_is_said(monkeypatch):
    def refuse(path: str):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(config, "dotenv_values", refuse)  # root may read any file
    with pytest.raises(SettingsError, match=r"\.env cannot be read \("):
        Settings.from_env()


def test_it_names_the_variables_that_differ_from_the_dotenv_file_and_no_value(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("CALLBACK_TOKEN=new,old\nAPI_KEY=same \nPORT=8000\nPUBLIC_URL=\n")
    for name, value in {"CALLBACK_TOKEN": "old", "API_KEY": "same", "PORT": "", "PUBLIC_URL": "x"}.items():
        monkeypatch.setenv(name, value)
    assert overridden() == ["CALLBACK_TOKEN", "PUBLIC_URL"]


def test_it_refuses_to_take_itself_for_upstream():
    ours = "https://backstop.example.com"
    with pytest.raises(SettingsError, match="ACEDATACLOUD_API_BASE_URL is this deployment's own address"):
        read(PUBLIC_URL=ours, ACEDATACLOUD_API_BASE_URL=f"{ours}/")
    assert read(PUBLIC_URL=ours).api_base_url == "https://api.acedata.cloud"
    assert read(ACEDATACLOUD_API_BASE_URL=ours).public_url is None


def test_it_refuses_a_callback_token_that_could_be_guessed():
    with pytest.raises(SettingsError, match="CALLBACK_TOKEN must be 16 characters or more"):
        read(CALLBACK_TOKEN="long-enough-to-be-a-secret,short")


@pytest.mark.parametrize("quote", ['"', "'"])
def test_a_value_in_quotes_is_refused_as_docker_would_pass_them_on(quote):
    for name in ("CALLBACK_TOKEN", "API_KEY", "ACEDATACLOUD_API_TOKEN", "PORT"):
        with pytest.raises(SettingsError, match=f"{name} is in quotes, which count as part") as stopped:
            read(**{name: f"{quote}hidden-hidden-hidden{quote}"})
        assert "hidden" not in str(stopped.value)


def test_quotes_in_the_file_do_no_harm(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in REQUIRED:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".env").write_text("".join(f'{name}="{value}"\n' for name, value in REQUIRED.items()))
    assert Settings.from_env().callback_tokens == (REQUIRED["CALLBACK_TOKEN"],)


@pytest.mark.parametrize("dsn", ["https://o1.ingest.sentry.io/2", "https://key@o1.ingest.sentry.io/", "key"])
def test_what_is_no_dsn_of_sentry_is_told_what_one_is_like(dsn):
    with pytest.raises(
        SettingsError, match="SENTRY_DSN must be the DSN of a Sentry project, like https://your-key@"
    ):
        read(SENTRY_DSN=dsn)
    good = "https://abc@o1.ingest.sentry.io/2"
    assert read(SENTRY_DSN=good).sentry_dsn == good


def test_a_misspelt_variable_is_named_and_its_value_is_not():
    assert read(FORWARD_URLS="https://hidden.example").misspelt == {"FORWARD_URLS": "FORWARD_URL"}
    with pytest.raises(SettingsError) as stopped:
        Settings.from_env({"API_KEY": REQUIRED["API_KEY"], "CALBACK_TOKEN": "hidden-hidden-hidden"})
    assert "- CALBACK_TOKEN is no setting and is ignored; did you mean CALLBACK_TOKEN?" in str(stopped.value)
    assert "hidden" not in str(stopped.value)


def test_a_misspelt_variable_is_found_in_the_environment_and_in_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PUBLIC_URI", "https://x.example")
    (tmp_path / ".env").write_text("RECONCILE_GRACE_S=5\n")
    assert Settings.from_env().misspelt == {
        "PUBLIC_URI": "PUBLIC_URL",
        "RECONCILE_GRACE_S": "RECONCILE_GRACE",
    }


def test_a_grace_beyond_the_time_to_give_up_is_refused():
    with pytest.raises(
        SettingsError, match="RECONCILE_GRACE is 86401 s, but RECONCILE_GIVE_UP_AFTER is 86400 s"
    ):
        read(RECONCILE_GRACE="86401")
    assert read(RECONCILE_GRACE="86400").reconcile_grace == timedelta(days=1)


@pytest.mark.parametrize(
    "url",
    [
        "https://x.example/?",
        "https://x.example/?a=1",
        "https://x.example/#",
        "https://x.example/callbacks/hidden-token",
        "https://x.example/sub/callbacks",
        "https://x y.example",
    ],
)
def test_an_address_to_which_no_path_can_be_appended_is_refused(url):
    with pytest.raises(SettingsError, match="PUBLIC_URL must be") as stopped:
        read(PUBLIC_URL=url)
    assert "hidden" not in str(stopped.value)


def test_this_deployment_may_be_below_a_path():
    assert read(PUBLIC_URL="https://x.example/backstop/").public_url == "https://x.example/backstop"


def test_it_refuses_a_key_that_could_be_guessed():
    assert read(API_KEY="k" * 16).api_keys == (ApiKey("default", "k" * 16),)
    with pytest.raises(SettingsError, match="API_KEY must be 16 characters or more"):
        read(API_KEY="k" * 15)


def test_the_example_file_lists_every_setting_with_its_default():
    example = {name: value or "" for name, value in dotenv_values(ROOT / ".env.example").items()}
    known = set(re.findall(r'reader\.read\(\s*"([A-Z_]+)"', (ROOT / "receiver/config.py").read_text()))
    assert set(example) == known
    assert Settings.from_env(example | REQUIRED) == read()


def test_the_reference_lists_every_setting():
    known = set(re.findall(r'reader\.read\(\s*"([A-Z_]+)"', (ROOT / "receiver/config.py").read_text()))
    settings = (ROOT / "docs/reference.md").read_text().partition("\n## Settings\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", settings, re.MULTILINE)) == known


PLATFORMS = {
    "Heroku": ({"DYNO": "web.1"}, "heroku addons:create heroku-postgresql:essential-0"),
    "Fly": ({"FLY_APP_NAME": "x"}, "fly mpg create, then fly mpg attach <its id>"),
}


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize(
    "database_url", ["", "sqlite:///backstop.db", "sqlite:////app/backstop.db", "sqlite:////dev/shm/x.db"]
)
def test_a_database_that_a_platform_throws_away_is_refused_with_what_to_type(platform, database_url):
    variables, remedy = PLATFORMS[platform]
    with pytest.raises(SettingsError) as stopped:
        read(**variables, DATABASE_URL=database_url)
    assert f"DATABASE_URL is a SQLite file on a disk that {platform} discards" in str(stopped.value)
    assert remedy in str(stopped.value)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_lasting_database_is_taken_on_a_platform(platform):
    variables, _ = PLATFORMS[platform]
    read(**variables, DATABASE_URL="postgres://u:p@host/name")
    read(**variables, ALLOW_EPHEMERAL_DATABASE="true")


def test_a_file_may_last_on_a_volume_where_there_are_any(monkeypatch):
    monkeypatch.setattr("receiver.config.read_mounts", lambda: "/dev/vdc /data ext4 rw 0 0\n")
    read(FLY_APP_NAME="x", DATABASE_URL="sqlite:////data/backstop.db")
    for variables in ({"FLY_APP_NAME": "x"}, {"DYNO": "web.1"}):
        with pytest.raises(SettingsError):
            read(**variables, DATABASE_URL="sqlite:////elsewhere/backstop.db")
    with pytest.raises(SettingsError):
        read(DYNO="web.1", DATABASE_URL="sqlite:////data/backstop.db")


def test_a_bad_database_url_is_told_once():
    with pytest.raises(SettingsError) as stopped:
        read(DYNO="web.1", DATABASE_URL="mysql://x/y", DIRECT_DATABASE_URL="postgresql://h/name")
    assert str(stopped.value).count("DATABASE_URL ") == 1


def test_the_address_and_the_proxies_are_those_of_the_platform_unless_they_are_set():
    database = {"DATABASE_URL": "postgres://u:p@host/name"}
    on_fly = read(FLY_APP_NAME="x", **database)
    assert (on_fly.public_url, on_fly.trusted_proxies) == ("https://x.fly.dev", 2)
    ours = read(FLY_APP_NAME="x", PUBLIC_URL="https://a.example", TRUSTED_PROXIES="3", **database)
    assert (ours.public_url, ours.trusted_proxies) == ("https://a.example", 3)
    assert (read().public_url, read().trusted_proxies) == (None, 0)


URL = "https://app.example.com/hooks"
SECRET = "whsec_" + "c2VjcmV0" * 4  # base64 of 24 bytes


def test_nobody_is_told_unless_the_settings_say_so():
    settings = read()
    assert (settings.forward_urls, settings.forward_secrets) == ((), ())
    assert (settings.forward_when, settings.forward_allow_private) == ("confirmed", False)
    read(CONFIRM_CALLBACKS="false")


def test_addresses_to_tell_with_commas_between_them_are_refused():
    for text in (f"{URL},https://b.example.com", f"{URL}, https://b.example.com"):
        with pytest.raises(SettingsError, match="FORWARD_URL must separate its addresses by spaces"):
            read(FORWARD_URL=text, FORWARD_SECRET=SECRET)
    assert read(FORWARD_URL=f"{URL}?of=a,b", FORWARD_SECRET=SECRET).forward_urls == (f"{URL}?of=a,b",)


def test_addresses_to_tell_are_separated_by_spaces():
    settings = read(FORWARD_URL=f" {URL}  http://10.0.0.7:9000/?a=1 ", FORWARD_SECRET=SECRET)
    assert settings.forward_urls == (URL, "http://10.0.0.7:9000/?a=1")


@pytest.mark.parametrize(
    "url",
    [
        "app.example.com",
        "ftp://app.example.com",
        "https://",
        "https:///hooks",
        "https://app.example.com/#part",
        "https://app.example.com/#",
        "https://app.example.com:http/",
        "https://app.example.com:99999/",
        "https://[::1/",
        "https://app.example.com/ü",
        f"{URL} and more",
    ],
)
def test_it_refuses_what_is_no_address_to_tell(url: str):
    with pytest.raises(SettingsError, match="FORWARD_URL must be http or https addresses"):
        read(FORWARD_URL=url, FORWARD_SECRET=SECRET)


@pytest.mark.parametrize("other", [URL, "HTTPS://APP.example.com:443/hooks"])
def test_it_refuses_an_address_that_is_there_twice(other: str):
    with pytest.raises(SettingsError, match="FORWARD_URL must name each address once"):
        read(FORWARD_URL=f"{URL} {other}", FORWARD_SECRET=SECRET)


def test_what_is_sent_is_signed_by_one_secret_or_several():
    with pytest.raises(SettingsError, match="FORWARD_SECRET is missing; FORWARD_URL needs it"):
        read(FORWARD_URL=URL)
    longest = "whsec_" + "A" * 86 + "=="  # 64 bytes
    assert read(FORWARD_SECRET=f"{SECRET} , {longest},").forward_secrets == (SECRET, longest)


@pytest.mark.parametrize(
    "secret",
    [
        "c2VjcmV0" * 4,  # no prefix
        "whsec_" + "c2VjcmV0" * 3,  # 18 bytes
        "whsec_" + "c2VjcmV0" * 11,  # 66 bytes
        "whsec_" + "c2VjcmV0" * 4 + "-_-_",  # base64 for URLs, which the package misreads
        "whsec_" + "c2VjcmV0" * 4 + "c",
        "whsec_",
        f"{SECRET},x",
        ",",
    ],
)
def test_it_refuses_what_cannot_sign_and_does_not_show_it(secret: str):
    with pytest.raises(
        SettingsError, match="FORWARD_SECRET must be whsec_ and the base64 of 24 to 64"
    ) as stopped:
        read(FORWARD_URL=URL, FORWARD_SECRET=secret)
    assert "c2Vj" not in str(stopped.value)
    assert str(stopped.value).count("FORWARD_SECRET ") == 1


def test_it_refuses_to_wait_for_confirmations_that_never_come():
    told = {"FORWARD_URL": URL, "FORWARD_SECRET": SECRET, "CONFIRM_CALLBACKS": "false"}
    with pytest.raises(SettingsError, match="FORWARD_WHEN=confirmed needs CONFIRM_CALLBACKS=true"):
        read(**told)
    assert read(**told, FORWARD_WHEN="settled").forward_when == "settled"
    with pytest.raises(SettingsError, match="FORWARD_WHEN must be confirmed or settled"):
        read(FORWARD_WHEN="never")


def test_addresses_with_passwords_stay_out_of_its_repr():
    settings = read(FORWARD_URL="https://user:hidden@x.example/?token=hidden", FORWARD_SECRET=SECRET)
    assert "hidden" not in repr(settings)
    assert SECRET not in repr(settings)
