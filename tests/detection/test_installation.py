"""The Detectron2 installer: every mend is needed and works, and nothing else is touched."""

from __future__ import annotations

import ast
import base64
import compileall
import csv
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from packaging.requirements import Requirement

from backbones.errors import UserError
from detection.installation import MENDS, apply_mends, build_wheel, find_installed, install
from detection.installation.index_settings import read_index_settings
from detection.installation.installer import default_wheel_dir
from detection.installation.patching import Edit, Mend
from detection.installation.source import (
    SDIST_NAME,
    SHA256,
    check_sdist,
    fetch_sdist,
    unpack_sdist,
)
from detection.installation.wheel import LAYOUT, REQUIREMENTS, VERSION, WHEEL_NAME, package_files

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "install_detectron2.py"
CHECKS = Path(__file__).with_name("mend_checks.py")

# What each check fails with when its mend alone is missing: the trouble that the mend is for.
TROUBLE = {
    "compiled-operators": "cannot import name '_C'",
    "rotated-nms": "_OpNamespace",
    "coco-evaluator": "lacks the compiled operator",
    "pillow-linear": "has no attribute 'LINEAR'",
    "numpy-aliases": "module 'numpy' has no attribute",
    "model-zoo-path": "import of pkg_resources halted",
    "export-without-caffe2": "No module named 'caffe2'",
    "scheduler-state": "the schedule starts again",
    "scheduler-base": "has no attribute '_LRScheduler'",
    "opencv-on-use": "import of cv2 halted",
    "panopticapi-on-use": "No module named 'panopticapi",
    "group-norm-probe": "must be divisible by num_groups",
    "fallback-sample": "Population must be a sequence",
    "log-encoding": "UnicodeEncodeError('ascii'",
    "meshgrid-indexing": "pass the indexing argument",
}


@pytest.fixture(scope="session")
def sdist() -> Path:
    """The checked source, from the installer's own folder or downloaded to it."""
    try:
        return fetch_sdist(default_wheel_dir())
    except UserError as error:
        pytest.skip(f"no Detectron2 source: {error}")


@pytest.fixture(scope="session")
def source(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source, unchanged."""
    return unpack_sdist(sdist, tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="session")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(sdist, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unzipped wheel: a folder of installed packages."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def _site_without(mend: Mend, source: Path, compiled: Path, folder: Path) -> Path:
    """Makes an installation with all mends but one; files that do not change are hard links."""
    tree, site = folder / "tree", folder / "site"
    touched = {edit.file for other in MENDS for edit in other.edits}
    for file in touched:
        (tree / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / file, tree / file)
    apply_mends(tree, [other for other in MENDS if other is not mend])
    shutil.copytree(compiled, site, copy_function=os.link)
    for file, _ in mend.new_files:
        (site / file).unlink()
    for name, data in package_files(tree).items():
        if (site / name).read_bytes() != data:
            (site / name).unlink()
            (site / name).write_bytes(data)
    return site


# ---------------------------------------------------------------------------------------- mends


def test_every_mend_has_a_check() -> None:
    assert [mend.name for mend in MENDS] == list(TROUBLE)
    assert all(mend.why for mend in MENDS)


@pytest.fixture(scope="session")
def check_results(
    source: Path, site: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[str, str]]:
    """For each mend, the check's error with all mends and with all but this one."""
    folder = tmp_path_factory.mktemp("checks")
    compiled = shutil.copytree(site, folder / "all")
    compileall.compile_dir(compiled, quiet=1)
    jobs: dict[str, tuple[str, str]] = {}
    for mend in MENDS:
        partial = _site_without(mend, source, compiled, folder / mend.name)
        jobs[mend.name] = (f"{mend.name}={compiled}", f"{mend.name}={partial}")
    output = folder / "results.json"
    subprocess.run(
        [sys.executable, CHECKS, output, *(job for pair in jobs.values() for job in pair)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
    results = json.loads(output.read_text())
    return {name: (results[mended], results[partial]) for name, (mended, partial) in jobs.items()}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the checks fork")
@pytest.mark.parametrize("name", TROUBLE)
def test_mend_is_needed_and_works(name: str, check_results: dict[str, tuple[str, str]]) -> None:
    mended, without = check_results[name]
    assert mended == ""
    assert TROUBLE[name] in without


@pytest.fixture(scope="session")
def trees(site: Path) -> list[tuple[Path, ast.Module]]:
    """The syntax tree of every module."""
    return [(path, ast.parse(path.read_text("utf-8"))) for path in site.rglob("*.py")]


def test_no_use_of_a_removed_name_is_left(trees: list[tuple[Path, ast.Module]]) -> None:
    """Every attribute of numpy and of PIL.Image that is read exists in the installed release."""
    from PIL import Image

    builtin_aliases = {"bool", "int", "float", "complex", "object", "str", "long", "unicode"}
    wrong = []
    for path, tree in trees:
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
                continue
            module, name = node.value.id, node.attr
            if module == "np" and (name in builtin_aliases or not hasattr(np, name)):
                wrong.append(f"{path.name}:{node.lineno} np.{name}")
            if module == "Image" and not hasattr(Image, name):
                wrong.append(f"{path.name}:{node.lineno} Image.{name}")
            if name == "_LRScheduler":
                wrong.append(f"{path.name}:{node.lineno} _LRScheduler")
    assert wrong == []


def test_module_level_imports_are_declared(trees: list[tuple[Path, ast.Module]]) -> None:
    """What an import of any module needs is a requirement, but for optional and dead parts."""
    distributions = {"PIL": "pillow", "hydra": "hydra-core", "yaml": "pyyaml"}
    declared = {Requirement(text).name.lower() for text in REQUIREMENTS}
    optional = {"caffe2", "onnx", "panopticapi", "mmdet", "mmcv", "detectron2"}
    undeclared = set()
    for path, tree in trees:
        if "model_zoo/configs" in path.as_posix():
            continue
        for node in tree.body:
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            else:
                continue
            tops = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
            tops = {distributions.get(top, top).lower() for top in tops}
            undeclared |= tops - declared - optional
    assert undeclared == set()


def test_only_mended_files_differ_and_say_so(source: Path, site: Path) -> None:
    original = package_files(source)
    installed = {name: (site / name).read_bytes() for name in original}
    differing = {name for name in original if original[name] != installed[name]}
    prefixes = [f"{source}/" for source in LAYOUT]
    expected = set()
    for file in {edit.file for mend in MENDS for edit in mend.edits}:
        (prefix,) = (prefix for prefix in prefixes if file.startswith(prefix))
        installed_name = LAYOUT[prefix.rstrip("/")] + "/" + file.removeprefix(prefix)
        assert "# Changed by spnas" in (site / installed_name).read_text("utf-8").splitlines()[-1]
        expected.add(installed_name)
    assert differing == expected
    assert set(package_files(source)) | {"detectron2/_C.py"} == {
        path.relative_to(site).as_posix()
        for path in site.rglob("*")
        if path.is_file() and path.relative_to(site).parts[0] == "detectron2"
    }


def _digest(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_changed_source_is_refused_and_left_as_it_is(source: Path, tmp_path: Path) -> None:
    tree = shutil.copytree(source, tmp_path / "tree")
    apply_mends(tree, MENDS)
    before = _digest(tree)
    with pytest.raises(UserError, match=r"unchanged v0.6 source"):
        apply_mends(tree, MENDS)
    assert _digest(tree) == before
    # The last mend's file differs: the mends before it are not written either.
    tree = shutil.copytree(source, tmp_path / "other")
    file = tree / MENDS[-1].edits[-1].file
    file.write_text(file.read_text("utf-8").replace("arange", "range"), "utf-8")
    before = _digest(tree)
    with pytest.raises(UserError, match=re.escape(MENDS[-1].edits[-1].file)):
        apply_mends(tree, MENDS)
    assert _digest(tree) == before


def test_a_folder_without_the_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a Detectron2 v0.6 source tree"):
        apply_mends(tmp_path, MENDS[1:])


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (Edit("f", "a.b", "c"), "axb"),
        (Edit("f", "a", "c"), "aa"),
        (Edit("f", r"\bint\b", "c", pattern=True), "np.int_"),
    ],
)
def test_an_edit_counts_exactly(edit: Edit, text: str) -> None:
    with pytest.raises(UserError, match="expected 1 times"):
        edit.apply(text)


def test_a_literal_replacement_keeps_backslashes() -> None:
    assert Edit("f", "a", r"\1\n").apply("xay") == r"x\1\ny"


# --------------------------------------------------------------------------------------- source


def test_a_tampered_source_is_refused(sdist: Path, tmp_path: Path) -> None:
    tampered = tmp_path / SDIST_NAME
    data = bytearray(sdist.read_bytes())
    data[1000] ^= 1
    tampered.write_bytes(data)
    for use in (
        lambda: check_sdist(tampered),
        lambda: build_wheel(tampered, tmp_path),
        lambda: fetch_sdist(tmp_path),
        lambda: install(tampered, tmp_path),
    ):
        with pytest.raises(UserError, match=f"expected {SHA256}"):
            use()
    assert [path.name for path in tmp_path.iterdir()] == [SDIST_NAME]


@pytest.mark.parametrize("name", ["missing.tar.gz", "."])
def test_a_wrong_path_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the Detectron2 source .*--sdist PATH"):
        install(tmp_path / name, tmp_path)


def test_an_unusable_wheel_dir_is_refused(sdist: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match="--wheel-dir"):
        build_wheel(sdist, file)
    with pytest.raises(UserError, match="--wheel-dir"):
        fetch_sdist(file / "below")


def test_an_archive_that_escapes_is_refused(tmp_path: Path) -> None:
    top = SDIST_NAME.removesuffix(".tar.gz")
    for name in (f"{top}/../../evil", "/evil", "elsewhere/evil"):
        archive = tmp_path / "evil.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            entry = tarfile.TarInfo(name)
            entry.size = 1
            tar.addfile(entry, io.BytesIO(b"x"))
        with pytest.raises(UserError, match="unsafe entry"):
            unpack_sdist(archive, tmp_path / "a" / "b")
    link = tarfile.TarInfo(f"{top}/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(link)
    with pytest.raises(UserError, match="unsafe entry"):
        unpack_sdist(archive, tmp_path / "a" / "b")
    archive.write_bytes(archive.read_bytes()[:40])
    with pytest.raises(UserError, match="cannot unpack"):
        unpack_sdist(archive, tmp_path / "a" / "b")
    assert list(tmp_path.rglob("evil")) == []


@pytest.fixture
def pip_alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without any pip configuration."""
    for name in list(os.environ):
        if name.startswith("PIP_") or name in (
            "REQUESTS_CA_BUNDLE",
            "CURL_CA_BUNDLE",
            "SSL_CERT_FILE",
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return monkeypatch


def test_settings_are_pips(pip_alone: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from pip._internal.models.index import PyPI

    assert read_index_settings().index_urls == (PyPI.simple_url,)
    assert read_index_settings().certificates is None
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://main.example/simple\n"
        "extra-index-url =\n    https://one.example/simple\n    https://two.example/simple\n"
        "find-links = /links\ncert = /file.pem\n[download]\ntimeout = 7\n[install]\ntimeout = 9\n"
    )
    pip_alone.setenv("PIP_CONFIG_FILE", str(config))
    pip_alone.setenv("REQUESTS_CA_BUNDLE", "/bundle.pem")
    pip_alone.setenv("PIP_TRUSTED_HOST", "one.example two.example:8080")
    settings = read_index_settings()
    assert settings.index_urls == (
        "https://main.example/simple",
        "https://one.example/simple",
        "https://two.example/simple",
    )
    assert settings.find_links == ("/links",)
    assert settings.trusted_hosts == ("one.example", "two.example:8080")
    assert settings.certificates == "/file.pem"
    assert settings.timeout == 7
    pip_alone.setenv("PIP_INDEX_URL", "https://environment.example/simple")
    pip_alone.setenv("PIP_CERT", "/environment.pem")
    assert read_index_settings().index_urls[0] == "https://environment.example/simple"
    assert read_index_settings().certificates == "/environment.pem"
    pip_alone.setenv("PIP_NO_INDEX", "1")
    assert read_index_settings().index_urls == ()
    pip_alone.setenv("PIP_CONFIG_FILE", os.devnull)
    pip_alone.delenv("PIP_CERT")
    assert read_index_settings().certificates == "/bundle.pem"


def _index(folder: Path, sdist: Path) -> str:
    """Makes a simple index that holds the source; returns its URL."""
    project = folder / "index" / "pb1-detectron2"
    project.mkdir(parents=True)
    shutil.copy(sdist, project / SDIST_NAME)
    (project / "index.html").write_text(f'<a href="{SDIST_NAME}">{SDIST_NAME}</a>')
    return project.parent.as_uri()


def test_the_source_comes_from_pips_index_or_links(
    pip_alone: pytest.MonkeyPatch, sdist: Path, tmp_path: Path
) -> None:
    url = _index(tmp_path, sdist)
    pip_alone.setenv("PIP_INDEX_URL", url)
    assert fetch_sdist(tmp_path / "a").read_bytes() == sdist.read_bytes()
    # A later place is used where an earlier one has nothing or does not answer.
    pip_alone.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    pip_alone.setenv("PIP_EXTRA_INDEX_URL", f"{tmp_path.as_uri()} {url}")
    check_sdist(fetch_sdist(tmp_path / "b"))
    pip_alone.delenv("PIP_EXTRA_INDEX_URL")
    pip_alone.setenv("PIP_NO_INDEX", "1")
    pip_alone.setenv("PIP_FIND_LINKS", str(sdist.parent))
    check_sdist(fetch_sdist(tmp_path / "c"))


def test_no_network_names_the_way_out(pip_alone: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pip_alone.setenv("PIP_INDEX_URL", "http://user:secret@127.0.0.1:9/simple")
    with pytest.raises(UserError, match=r"127.0.0.1:9.*--sdist PATH") as raised:
        fetch_sdist(tmp_path)
    assert "secret" not in str(raised.value)
    pip_alone.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(UserError, match=r"no index and no links.*--sdist PATH"):
        fetch_sdist(tmp_path)
    pip_alone.setenv("PIP_CERT", str(tmp_path / "missing.pem"))
    with pytest.raises(UserError, match=r"missing\.pem.*'cert' setting"):
        fetch_sdist(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_file_on_the_index_is_refused(
    pip_alone: pytest.MonkeyPatch, sdist: Path, tmp_path: Path
) -> None:
    pip_alone.setenv("PIP_INDEX_URL", _index(tmp_path, sdist))
    (tmp_path / "index" / "pb1-detectron2" / SDIST_NAME).write_bytes(b"something else")
    with pytest.raises(UserError, match=f"the downloaded file is not .* expected {SHA256}"):
        fetch_sdist(tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []


def test_unearth_missing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "unearth", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install unearth.*--sdist PATH"):
        fetch_sdist(tmp_path)


# ---------------------------------------------------------------------------------------- wheel


def test_wheel_metadata(site: Path) -> None:
    (distribution,) = importlib.metadata.distributions(path=[str(site)])
    assert distribution.name == "detectron2"
    assert distribution.version == VERSION
    requirements = [Requirement(text) for text in distribution.requires or []]
    plain = {requirement.name for requirement in requirements if requirement.marker is None}
    assert {"torch", "torchvision", "Pillow", "pycocotools", "fvcore", "iopath"} <= plain
    assert not plain & {"future", "pydot", "black", "opencv-python-headless", "setuptools"}
    assert "Apache" in distribution.metadata["License"]
    assert all(mend.name in str(distribution.metadata) for mend in MENDS)
    assert (site / f"detectron2-{VERSION}.dist-info" / "LICENSE").stat().st_size > 10_000


def test_wheel_record_lists_every_file(site: Path) -> None:
    info = f"detectron2-{VERSION}.dist-info"
    with (site / info / "RECORD").open(newline="") as file:
        rows = {name: (digest, size) for name, digest, size in csv.reader(file)}
    files = {p.relative_to(site).as_posix() for p in site.rglob("*") if p.is_file()}
    assert set(rows) == files
    assert rows.pop(f"{info}/RECORD") == ("", "")
    for name, (digest, size) in rows.items():
        data = (site / name).read_bytes()
        value = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        assert (digest, int(size)) == (f"sha256={value}", len(data))


def test_wheel_layout(site: Path) -> None:
    for name in ("point_rend", "deeplab", "panoptic_deeplab"):
        assert (site / "detectron2" / "projects" / name / "__init__.py").is_file()
    zoo = site / "detectron2" / "model_zoo" / "configs"
    assert (zoo / "COCO-InstanceSegmentation" / "mask_rcnn_R_50_FPN_1x.yaml").is_file()
    assert {path.name for path in site.iterdir()} == {
        "detectron2",
        f"detectron2-{VERSION}.dist-info",
    }


def test_wheel_is_reproducible(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    assert build_wheel(sdist, tmp_path).read_bytes() == wheel.read_bytes()


# -------------------------------------------------------------------------------------- install


def _fake_detectron2(folder: Path, body: str = "") -> Path:
    """Makes an importable package with the submodules that the installer tries."""
    package = folder / "detectron2"
    for name in (
        "layers",
        "modeling",
        "data",
        "engine",
        "evaluation",
        "checkpoint",
        "solver",
        "structures",
        "model_zoo",
        "utils",
    ):
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").write_text(body if name == "model_zoo" else "")
    (package / "utils" / "visualizer.py").write_text("")
    (package / "__init__.py").write_text('__version__ = "0.7"\n')
    info = folder / "detectron2-0.7.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: detectron2\nVersion: 0.7\n")
    return package


@pytest.fixture
def no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the test fail if pip would be asked to install something."""
    monkeypatch.setattr(
        "detection.installation.installer._pip_install", lambda wheel: pytest.fail("pip was run")
    )


@pytest.mark.usefixtures("no_pip")
def test_a_working_installation_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = _fake_detectron2(tmp_path)
    before = _digest(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    outcome = install(wheel_dir=tmp_path / "unused")
    assert outcome.wheel is None and outcome.installed is not None
    assert str(outcome) == (
        f"detectron2 0.7 in {package} works and is left alone (--force replaces it)"
    )
    assert _digest(tmp_path) == before


@pytest.mark.usefixtures("no_pip")
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import pkg_resources_\n", "pkg_resources_.*mend or uninstall it, or .* --force"),
        ("raise ModuleNotFoundError(\"No module named 'pkg_resources'\")\n", "setuptools<81"),
        ("raise AttributeError('np.bool')\n", "AttributeError: np.bool"),
    ],
)
def test_a_broken_installation_is_not_replaced_unasked(
    body: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = _fake_detectron2(tmp_path, body)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError, match=message) as raised:
        install(wheel_dir=tmp_path / "unused")
    assert f"detectron2 0.7 in {package}" in str(raised.value)


@pytest.mark.usefixtures("no_pip")
def test_missing_requirements_are_named(
    monkeypatch: pytest.MonkeyPatch, sdist: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        "detection.installation.installer.REQUIREMENTS", ("numpy", "no-such-package>=2", "pip<1")
    )
    with pytest.raises(UserError, match=r"pip install 'no-such-package>=2' 'pip<1'$"):
        install(sdist, tmp_path, force=True)


def test_a_dying_interpreter_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _fake_detectron2(tmp_path, "import os, sys\nprint('segfault', file=sys.stderr)\nos._exit(9)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError, match=r"ended with code 9 .*segfault"):
        find_installed()


@pytest.mark.slow
def test_install_end_to_end(monkeypatch: pytest.MonkeyPatch, sdist: Path, tmp_path: Path) -> None:
    """Pip puts the wheel where it is told to, and a fresh interpreter imports it from there."""
    target = tmp_path / "target"
    monkeypatch.setenv("PIP_TARGET", str(target))
    monkeypatch.setenv("PYTHONPATH", str(target))
    outcome = install(sdist, tmp_path / "wheels", force=True)
    assert outcome.wheel == tmp_path / "wheels" / WHEEL_NAME
    assert outcome.installed is not None and outcome.installed.error == ""
    assert outcome.installed.version == VERSION and outcome.installed.is_own
    assert Path(outcome.installed.location) == target / "detectron2"


@pytest.mark.usefixtures("no_pip")
def test_own_older_wheel_is_renewed(
    monkeypatch: pytest.MonkeyPatch, sdist: Path, tmp_path: Path
) -> None:
    from detection.installation.installer import Installed

    renewed: list[Path] = []
    found = [Installed("0.6+spnas.0", "somewhere"), Installed(VERSION, "somewhere")]
    monkeypatch.setattr("detection.installation.installer.find_installed", lambda: found.pop(0))
    monkeypatch.setattr("detection.installation.installer._pip_install", renewed.append)
    install(sdist, tmp_path)
    assert renewed == [tmp_path / WHEEL_NAME]


# ----------------------------------------------------------------------------------------- tool


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    specification = importlib.util.spec_from_file_location("install_detectron2", TOOL)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_tool_reports_a_user_error_in_one_line(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(["--sdist", str(tmp_path / "missing.tar.gz"), "--wheel-only"]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    (line,) = errors.splitlines()
    assert line.startswith("error: cannot read the Detectron2 source")


def test_tool_builds_the_wheel_alone(
    tool: ModuleType, sdist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--sdist", str(sdist), "--wheel-dir", str(tmp_path), "--wheel-only"]
    assert tool.main(arguments) == 0
    assert capsys.readouterr().out.strip() == f"built {tmp_path / WHEEL_NAME}"
    assert (tmp_path / WHEEL_NAME).is_file()


def test_tool_help_names_every_option(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        tool.main(["--help"])
    assert ended.value.code == 0
    help_text = capsys.readouterr().out
    assert all(name in help_text for name in ("--sdist", "--wheel-dir", "--wheel-only", "--force"))
