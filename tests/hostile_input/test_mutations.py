"""Whatever single thing is wrong in a bundle or a robot, something refuses it, or says why not."""

from pathlib import Path

import pytest

from mlsh_ros.recording import unpacking
from mlsh_ros.recording.bag_reader import DEFINITIONS, LONGEST
from policies.bundle import bundle_files, manifest
from policies.bundle import onnx_reader as onnx_file
from policies.bundle.bundle import load_bundle
from policies.bundle.imported_graph import MAX_NODES
from policies.bundle.onnx_reader import OPERATORS
from policies.skill_import import onnx_size, reading
from sim.files import arrays as checkpoint
from sim.files import strict_json as json_text
from sim.files.strict_yaml import MAX_BYTES, MAX_VALUES
from sim.interface import LARGEST
from tests.support import mutations
from tests.support.mutations import FITS, HASH, ROWS, VALIDATION, Mutation, fresh, outcome, row

TABLE = mutations.table()
DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT = (DOCS / "mutations.md").read_text()


@pytest.mark.parametrize("mutation", TABLE, ids=[f"{m.where}: {m.name}" for m in TABLE])
def test_somebody_refuses_it(mutation: Mutation, tmp_path):
    slip, forgery = outcome(mutation, tmp_path)
    assert "\n" not in f"{slip} {forgery}"
    if mutation.in_bundle:
        assert slip is not None, "a slip passed the hashes"
    if not mutation.repaired:
        forged = load_bundle(tmp_path / "forgery" / "bundle").manifest
        assert forged == load_bundle(mutations.BUNDLE).manifest
    elif mutation.excuse is None:
        assert forgery is not None, "it passed in silence"
    else:
        assert forgery is None, "it is refused now: take it off the exceptions"
    assert row(mutation, slip, forgery).rstrip("|") in DOCUMENT, "write docs/mutations.md again"


def test_there_are_many_and_each_has_a_name():
    names = [(m.where, m.name) for m in TABLE]
    assert len(set(names)) == len(names)
    assert len([m for m in TABLE if m.excuse is None]) >= 60
    assert sum(line.startswith("| ") for line in DOCUMENT.splitlines()) == len(TABLE) + 2  # heads
    for guard in (HASH, VALIDATION, ROWS, FITS):
        assert f"| {guard} |" in DOCUMENT


def test_the_whole_one_passes(tmp_path):
    whole = Mutation("nothing", mutations.MANIFEST, lambda place: place.repair())
    assert outcome(whole, tmp_path) == (None, None)
    assert fresh(tmp_path / "more").bundle.is_dir()


def test_the_limits_in_the_security_page_are_those_of_the_code():
    page = (DOCS / "security.md").read_text()
    assert f"{bundle_files.MAX_FILE_BYTES // 2**20} MiB a file" in page
    assert (
        f"{bundle_files.MAX_BUNDLE_BYTES // 2**20} MiB in all, {manifest.MAX_FILES} files" in page
    )
    assert (
        f"| {bundle_files.MAX_MANIFEST_BYTES // 2**20} MiB, {json_text.MAX_VALUES:,} values"
        in page
    )
    assert f"{onnx_file.MAX_FIELDS:,} fields" in page
    assert f"{onnx_size.MAX_FIELDS:,} fields of the wire format and 2^22 whole numbers" in page
    assert onnx_size.MAX_NUMBERS == 2**22
    assert f"{reading.MOST_LOADED:,} operators, of which {MAX_NODES} may be needed" in page
    assert unpacking.LARGEST_CHUNK == unpacking.LARGEST_MESSAGE == 128 * 2**20
    assert "128 MiB a chunk and a message, unpacked" in page
    assert f"{unpacking.DENSEST} times the size of the file, or {unpacking.FREE >> 20} MiB" in page
    assert f"a record for each byte of the file, or {unpacking.FREE_RECORDS:,};" in page
    assert f"{LONGEST >> 10} KiB, {DEFINITIONS >> 10} KiB in all" in page
    assert f"files {checkpoint.AT_ONCE // 2**10} KiB" in page
    assert f"{checkpoint.MAX_CHECKPOINT_BYTES // 2**30} GiB (checkpoints)" in page
    assert f"numbers of an interface are at most {LARGEST:.0e}".replace("+0", "") in page.lower()
    assert f"{MAX_BYTES // 2**10} KiB, {MAX_VALUES:,} values" in page
    assert f"six operators ({', '.join(sorted(OPERATORS, key=page.index))})" in page
    assert len(OPERATORS) == 6
