import pytest

from receiver.app import create_app

ADDRESS = "The status page: http://127.0.0.1:8000/ (sign in with the API_KEY in .env)"


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize(
    "variables", [{}, {"ACEDATACLOUD_API_TOKEN": ""}, {"PUBLIC_URL": "https://here.example"}]
)
def test_the_next_steps_name_the_settings_that_are_missing(make_settings, variables):
    app = create_app(make_settings(**variables))
    lines = app.test_cli_runner().invoke(args=["next-steps"]).output.splitlines()
    missing = [line.removeprefix("Still missing in .env: ").partition(",")[0] for line in lines[1:]]
    assert lines[0] == ADDRESS
    assert missing == [
        *(["ACEDATACLOUD_API_TOKEN"] if "ACEDATACLOUD_API_TOKEN" in variables else []),
        *(["PUBLIC_URL"] if "PUBLIC_URL" not in variables else []),
    ]


def test_the_callback_url_may_name_a_service(make_client):
    runner = make_client(PUBLIC_URL="https://backstop.example").application.test_cli_runner()
    plain = runner.invoke(args=["callback-url"]).output.strip()
    assert runner.invoke(args=["callback-url", "--service", "suno"]).output.strip() == f"{plain}?service=suno"
    assert runner.invoke(args=["callback-url", "--service", "unheard-of"]).exit_code == 2
