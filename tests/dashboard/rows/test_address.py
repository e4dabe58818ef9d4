import pytest

from fairlead.dashboard.rows.address import secrets_of, with_limits, without_password
from fairlead.errors import DashboardError


@pytest.mark.parametrize(
    ("uri", "shown", "secrets"),
    [
        ("postgresql://h/d", "postgresql://h/d", []),
        ("postgresql://ana@h:5432/d", "postgresql://ana@h:5432/d", []),
        ("postgres://ana:s%2Fx@h/d", "postgres://ana@h/d", ["s%2Fx", "s/x"]),
        ("postgresql://ana:@h/d", "postgresql://ana@h/d", []),
        ("postgresql://h/d?password=x&sslmode=require&sslpassword=yy", "postgresql://h/d?sslmode=require", ["yy", "x"]),
        ("postgresql://h/d?user=a&PASSWORD=x", "postgresql://h/d?user=a", ["x"]),
        ("postgresql://h/d?password=x", "postgresql://h/d", ["x"]),
        ("postgresql://ana@h/d?passfile=/run/pgpass", "postgresql://ana@h/d?passfile=/run/pgpass", []),
    ],
)
def test_a_password_is_left_out(uri: str, shown: str, secrets: list[str]) -> None:
    assert without_password(uri) == shown
    assert without_password(shown) == shown
    assert secrets_of(uri) == secrets


def test_a_password_that_cannot_be_told_from_the_rest_is_refused_and_not_shown() -> None:
    with pytest.raises(DashboardError, match=r"has `/` as %2F, `@` as %40: write it so") as caught:
        without_password("postgresql://ana:se/cr@et@h/d")
    assert "cr" not in str(caught.value)


def test_waiting_is_limited_unless_the_address_says_how_long() -> None:
    assert "connect_timeout=5&" in with_limits("postgresql://h/d")
    limited = with_limits("postgresql://h/d?connect_timeout=60&sslmode=require")
    assert limited.startswith("postgresql://h/d?connect_timeout=60&sslmode=require&application_name=fairlead&")
    assert limited.count("connect_timeout") == 1
    assert with_limits(limited) == limited
