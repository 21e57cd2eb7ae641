from concurrent.futures import ThreadPoolExecutor


def test_a_secret_is_made_once_and_readable_by_its_owner_only(home) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: home.secret("pseudonym.key"), range(32)))
    assert len(keys) == 1
    assert len(keys.pop()) == 32
    path = home.home / "secrets" / "pseudonym.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_fingerprint_tells_keys_apart_without_showing_them(home) -> None:
    first = home.fingerprint("a")
    assert first == home.fingerprint("a") != home.fingerprint("b")
    assert first not in home.secret("a").hex()
