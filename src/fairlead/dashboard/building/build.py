"""`fairlead dashboard build`: from a bundle and rows to a store that is computed, proved and whole.

    plan → bundle → rows → explain → write beside → load and visit in another process → put in place

Layer L3; explainerdashboard is imported once the plan is made.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fairlead
from fairlead.bundle.manifest import DESCRIPTOR
from fairlead.bundle.read import Bundle, open_bundle
from fairlead.dashboard.boards import explainer_file
from fairlead.dashboard.boards.board import library_versions
from fairlead.dashboard.boards.layout import has_interactions
from fairlead.dashboard.boards.memory import parts_of
from fairlead.dashboard.boards.options import yaml_of
from fairlead.dashboard.boards.trial import try_store
from fairlead.dashboard.building.data import observe
from fairlead.dashboard.building.new_store import new_store
from fairlead.dashboard.building.plan import DashboardOptions, Plan, bundle_of, plan_of
from fairlead.dashboard.building.recipe import environment_of, options_of, recipe_of, where
from fairlead.dashboard.explainer.explain import detach, explain
from fairlead.dashboard.rows import prepare
from fairlead.dashboard.store import (
    BUNDLE,
    EXPLAINER,
    MANIFEST,
    OPTIONS,
    ROWS,
    Recipe,
    Store,
    StoreManifest,
    encode_manifest,
    stored_file,
)
from fairlead.dashboard.trouble import Trouble
from fairlead.errors import BundleError, DashboardError

__all__ = ["Built", "DashboardOptions", "build", "rebuild"]

Step = Callable[[str, float], None]


@dataclass(frozen=True)
class Built:
    """What came of a build.

    Parameters
    ----------
    path : the store.
    manifest : what it says about itself.
    warnings : what the user should know.
    """

    path: Path
    manifest: StoreManifest
    warnings: tuple[str, ...]


def build(
    source: str | Path,
    target: Path | None = None,
    options: DashboardOptions | None = None,
    step: Step = lambda what, share: None,
) -> Built:
    """Build a dashboard.

    Parameters
    ----------
    source : a bundle, what a bundle can be made of, or an explainer.yaml of explainerdashboard.
    target : the store to make; one that is there is replaced in one step, when the new one is proved to work.
    options : see `DashboardOptions`.
    step : is told what is done, and what share of it (0 to 1).

    Raises
    ------
    DashboardError
        When something does not fit, cannot be written, or does not work.
    SourceError, BundleError
        When the model cannot be loaded.
    """
    options = options or DashboardOptions()
    step("check", 0.0)
    plan = plan_of(source, target, options)
    with _new_page(options.static) as page, new_store(plan.target_path) as partial:
        manifest, told = _write(partial, plan, options, recipe_of(source, options), step)
        step("try", 0.0)
        try_store(partial, page, environment_of(options))
        step("try", 1.0)
    Trouble.clear(plan.target_path)
    return Built(plan.target_path, manifest, (*plan.warnings, *told))


def rebuild(path: Path, step: Step = lambda what, share: None) -> Built:
    """Build a store anew, of what it was built from.

    Raises
    ------
    DashboardError, SourceError, BundleError
        As `build`; the store is as it was then.
    """
    store = Store.open(path)
    recipe = store.manifest.recipe
    with where(recipe):
        return build(recipe.source, store.path, options_of(recipe), step)


@contextmanager
def _new_page(path: Path | None) -> Iterator[Path | None]:
    """Give where the page is to be written, which gets to `path` when all else is done."""
    if path is None:
        yield None
        return
    path = path.absolute()
    beside = path.with_name(f".{path.name}.new")
    with _told(path):
        beside.touch()  # before anything is computed
    try:
        yield beside
        with _told(path):
            beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def _told(page: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DashboardError(f"{page}: the page cannot be written: {error.strerror}") from error


def _write(
    partial: Path, plan: Plan, options: DashboardOptions, recipe: Recipe, step: Step
) -> tuple[StoreManifest, tuple[str, ...]]:
    """Compute all of a store and write it, and give what it says about itself and what is to be told."""
    begun_at = datetime.now(UTC)  # what changes from now on may not be in it
    step("model", 0.0)
    found = bundle_of(plan, step)
    bundle = _copied(found.bundle, partial / BUNDLE)
    step("rows", 0.0)
    observed = observe(bundle, plan.data, plan.target, plan.index, options.sample)
    rows = None if options.rows is None else prepare(options.rows, bundle.manifest.schema, partial / ROWS, step)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # explainerdashboard and shap warn of all that they decide
        explainer = explain(bundle, observed, plan.explainer, step)
        step("write", 0.0)
        detach(explainer)
        explainer_file.dump(explainer, partial / EXPLAINER)
        parts = parts_of(explainer, (partial / EXPLAINER).stat().st_size)
    params = {"title": f"{bundle.manifest.name} {bundle.manifest.version}", "description": "", **plan.params}
    (partial / OPTIONS).write_bytes(yaml_of(params))
    manifest = StoreManifest(
        title=str(params["title"]),
        description=str(params["description"] or ""),
        kind=bundle.manifest.kind,
        target=observed.target,
        index_name=observed.index_name,
        n_rows=len(explainer),
        n_read=observed.n_read,
        bundle_name=bundle.manifest.name,
        bundle_version=bundle.manifest.version,
        bundle_digest=bundle.digest,
        built_at=begun_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        fairlead_version=fairlead.__version__,
        versions=library_versions(),
        files={name: stored_file(partial / name) for name in _own_files(partial)},
        parts=parts,
        settings=_settings(plan, explainer),
        rows=rows,
        inputs=tuple(map(str, plan.inputs)),
        recipe=recipe,
        source_key=found.key,
    )
    (partial / MANIFEST).write_bytes(encode_manifest(manifest))
    step("write", 1.0)
    return manifest, (*found.warnings, *observed.warnings, *explainer.notes)


def _settings(plan: Plan, explainer: Any) -> dict[str, str]:
    return {
        "rows": f"{len(explainer):,}",
        "precision": explainer.precision,
        "interactions": "yes" if has_interactions(explainer) else "no",
        "classes": "positive only" if plan.explainer.positive_class_only else "all",
    }


def _own_files(partial: Path) -> list[str]:
    """List what is not the bundle's, by path with forward slashes."""
    files = (path.relative_to(partial).as_posix() for path in partial.rglob("*") if path.is_file())
    return sorted(name for name in files if not name.startswith(f"{BUNDLE}/"))


def _copied(bundle: Bundle, target: Path) -> Bundle:
    """Copy a bundle, and see that the copy is the bundle."""
    for name in [DESCRIPTOR, *bundle.manifest.files]:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.path / name, target / name)
    copy = open_bundle(target)
    if copy.digest != bundle.digest:
        raise BundleError(f"{bundle.path}: changed while it was copied: try again when it is written")
    return copy
