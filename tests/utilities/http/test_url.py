"""Addresses of services."""

import pytest

from lightning_green.utilities.http.url import check_url


@pytest.mark.parametrize("url", ["http://x", "https://x:1/a@b", "http://x?mail=a@b", "https://[::1]:9090/api/v1"])
def test_address_without_credentials_is_accepted(url):
    assert check_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://ada:s3cret@x",
        "https://s3cret@x/y",
        "ftp://ada:s3cret@x",
        "ada:s3cret@x",
        "http:/ada:s3cret@x",
        "http:///ada:s3cret@x",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_printed(url):
    with pytest.raises(ValueError, match="a user name or a password; set TOKEN or use a file instead") as refused:
        check_url(url, "TOKEN")
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("url", ["", "x", "ftp://x", "file:///x", "http://", "http:///x", None, 3])
def test_other_addresses_are_refused(url):
    with pytest.raises(ValueError, match=r"`url` should start with http:// or https://"):
        check_url(url)
