import stat

import pytest

from entrepot_chassis.seal import AtRest, KeyPair, SealError, seal


def test_what_is_sealed_to_a_key_is_opened_by_it(tmp_path):
    keys = KeyPair.load_or_make(tmp_path / "deep" / "key")
    again = KeyPair.load_or_make(tmp_path / "deep" / "key")
    box = seal(keys.public_key, b"secret")
    assert b"secret" not in box
    assert again.open(box) == b"secret"
    assert seal(keys.public_key, b"secret") != box


def test_key_files_are_for_the_owner_only(tmp_path):
    KeyPair.load_or_make(tmp_path / "key")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_another_key_cannot_open_the_box():
    with pytest.raises(SealError):
        KeyPair.new().open(seal(KeyPair.new().public_key, b"secret"))


def test_each_changed_or_missing_byte_is_noticed():
    keys = KeyPair.new()
    box = seal(keys.public_key, b"secret")
    for place in range(len(box)):
        changed = bytearray(box)
        changed[place] ^= 1
        with pytest.raises(SealError):
            keys.open(bytes(changed))
        with pytest.raises(SealError):
            keys.open(box[:place])


@pytest.mark.parametrize("key", ["", "!!!", "AAAA", "A" * 44])
def test_a_bad_public_key_is_refused(key):
    with pytest.raises(SealError):
        seal(key, b"secret")


def test_a_box_at_rest_is_bound_to_its_place_and_key(tmp_path):
    store = AtRest.load_or_make(tmp_path / "key")
    box = store.encrypt(b"secret", "owner/store/column")
    assert AtRest.load_or_make(tmp_path / "key").decrypt(box, "owner/store/column") == b"secret"
    with pytest.raises(SealError, match="moved"):
        store.decrypt(box, "owner/other/column")
    with pytest.raises(SealError, match="ours is another"):
        AtRest.load_or_make(tmp_path / "second").decrypt(box, "owner/store/column")
    for place in range(len(box)):
        changed = bytearray(box)
        changed[place] ^= 1
        with pytest.raises(SealError):
            store.decrypt(bytes(changed), "owner/store/column")


def test_a_file_that_is_no_key_is_refused(tmp_path):
    (tmp_path / "key").write_text("hello")
    with pytest.raises(SealError, match="no key"):
        AtRest.load_or_make(tmp_path / "key")
