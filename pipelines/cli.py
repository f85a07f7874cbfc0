"""The `interplake` commands. They parse arguments, call other modules and print."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from builders.errors import UserError
from pipelines.graph.closure import ROOT

RELEASE = Path("build/release")


class Commands(click.Group):
    """A group of commands: a user's mistake is one line on standard error and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(2)


def run() -> None:
    """Run the command with the code of the project in which it is called, which may be another than the code that is installed."""
    if Path("pipelines/cli.py").is_file() and Path.cwd() != ROOT:
        os.execv(sys.executable, [sys.executable, "-m", "pipelines", *sys.argv[1:]])  # noqa: S606  # this very Python
    main()


@click.group(cls=Commands)
@click.version_option(package_name="interplake")
def main() -> None:
    """Language-model checkpoints become versioned, typed Hugging Face datasets."""


@main.command()
@click.option("--params", "file", type=click.Path(path_type=Path), default=None, help="The file to read instead of params.yaml.")
@click.option("--offline", is_flag=True, help="Skip everything that lies on the Hub.")
def check(file: Path | None, offline: bool) -> None:
    """Find mistakes in params.yaml, and in the files and models that it names, before a long run."""
    from pipelines.graph.declared import require_sections
    from pipelines.params import load, path_of
    from pipelines.stages.check import check_all

    params = load(file)
    require_sections(path_of(file))
    for line in check_all(params, offline=offline):
        click.echo(line)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--params", "file", type=click.Path(path_type=Path), required=True, help="The params of its run, such as one of examples/.")
def start(folder: Path, file: Path) -> None:
    """Begin a project in a new folder; `dvc repro` in it makes its release."""
    from pipelines.start import start as begin

    click.echo(f"wrote {begin(folder, file)}; next: cd {folder} && . {sys.prefix}/bin/activate && dvc repro")


@main.command()
def expand() -> None:
    """Write out entries of params.yaml that stand for many layers, since DVC reads the file as it is."""
    from pipelines.start import expand as written_out

    click.echo(written_out())


@main.command()
@click.argument("sae")
@click.argument("latent", type=int)
@click.option("--release", type=click.Path(path_type=Path), default=RELEASE, help="Folder of the release.", show_default=True)
@click.option("--contexts", "most", type=click.IntRange(min=1), default=8, help="How many windows to show.", show_default=True)
def show(sae: str, latent: int, release: Path, most: int) -> None:
    """Print a latent: its explanations, their scores, and coloured contexts."""
    from cards.show import show_latent

    show_latent(release, sae, latent, most)


@main.command()
@click.option("--run", default=None, metavar="EXAMPLE", help="Write the page of an example instead, such as local, from --release.")
@click.option("--release", default=RELEASE, type=click.Path(path_type=Path), help="The release to take results from.")
def docs(run: str | None, release: Path) -> None:
    """Write docs/datasets.md from the tables, and README's results from the release."""
    from pipelines.docs import write_docs, write_run

    for path in write_run(release, run) if run else write_docs(release):
        click.echo(f"wrote {path}")


@main.command()
@click.argument("stage")
@click.option("--since", default=None, metavar="COMMIT", help="Compare with dvc.lock at a commit, such as HEAD after a run.")
def why(stage: str, since: str | None) -> None:
    """Say why a stage, such as scores@detection, will run, or why it ran since a commit."""
    from pipelines.why import reasons

    lines = list(reasons(stage, since))
    for line in lines or [f"{stage}: nothing has changed since it ran; --since COMMIT compares with an earlier run"]:
        click.echo(line)


@main.command()
@click.option("--prune", is_flag=True, help="Drop every answer that no row of the build uses.")
def cache(prune: bool) -> None:
    """Show how much disk the kept answers of language models take, by engine and model."""
    from pipelines.opened.engines import prune_cache, sizes

    if prune:
        click.echo(f"dropped {prune_cache():,} answers that nothing uses")
    for engine, model, answers, size in sizes():
        click.echo(f"{engine} {model}: {answers:,} answers, {size / 1e6:.1f} MB")


@main.command()
@click.argument("release", type=click.Path(path_type=Path), default=RELEASE)
def verify(release: Path) -> None:
    """Check a release: its files, schemas, bounds and keys, and that every row that it refers to is there."""
    from builders.releases.foreign import references
    from builders.releases.release import open_release
    from builders.releases.verify import verify as problems

    opened = open_release(release)
    if found := problems(opened):
        for line in found:
            click.echo(line, err=True)
        raise UserError(f"{release}: this many problems: {len(found)}")
    rows, size = sum(opened.rows(name) for name in opened.tables), sum(file.bytes for file in opened.files.values())
    click.echo(f"ok: {len(opened.tables)} configs, {rows:,} rows, {size / 1e6:.1f} MB, {len(references(opened))} references")


@main.command()
@click.argument("before")
@click.argument("after")
@click.option("--all", "everything", is_flag=True, help="Show every explanation that changed.")
@click.option("--json", "file", type=click.Path(path_type=Path), default=None, help="Write all that differs to a JSON file, too.")
@click.option("--endpoint", default=None, help="The Hub to ask instead of huggingface.co.")
def diff(before: str, after: str, everything: bool, file: Path | None, endpoint: str | None) -> None:
    """Compare two releases: folders, or datasets on the Hub such as org/name@v1.0.0."""
    from builders.releases.compare import compare
    from builders.releases.hub import release_at
    from cards.difference import show_difference, write_json

    found = compare(release_at(before, endpoint), release_at(after, endpoint))
    show_difference(found, everything=everything)
    if file is not None:
        write_json(found, file)


@main.command()
@click.option("--repo", default=None, metavar="OWNER/NAME", help="The dataset repository, if not release.repo; made if it is not there.")
@click.option("--release", type=click.Path(path_type=Path), default=RELEASE, help="Folder of the release.", show_default=True)
@click.option("--dry-run", is_flag=True, help="Check everything, and list what would travel; publish nothing.")
@click.option("--private", is_flag=True, help="Make the repository private, if it is not there yet.")
@click.option("--branch", default="main", show_default=True, help="Publish on another branch, which is made from main.")
@click.option("--pr", is_flag=True, help="Open a pull request instead; it gets no tag.")
@click.option("--endpoint", default=None, metavar="URL", help="Another Hub than huggingface.co.")
@click.option("--viewer", default=None, metavar="URL", help="The viewer's address, if it is another than that of huggingface.co.")
@click.option("--yes", is_flag=True, help="Do not ask before publishing.")
@click.option("--read-back/--no-read-back", default=True, help="Load every row from the Hub afterwards and compare it.", show_default=True)
def publish(release: Path, repo: str | None, *, dry_run: bool, yes: bool, read_back: bool, viewer: str | None, **place: Any) -> None:
    """Publish a release on the Hugging Face Hub: one commit, and a tag that pins it."""
    from pipelines.publishing import bucket, plan, readback, remote, upload

    target = remote.Target(plan.repo_of(repo), **place)
    found = plan.prepare(release, target, dry=dry_run)
    for line in plan.described(found):
        click.echo(line)
    if dry_run:
        return
    if not (yes or found.tagged):
        click.confirm("Publish this?", abort=True)
    published = upload.publish(found)
    click.echo(published.told(target.repo))
    for line in bucket.fill(target):
        click.echo(line)
    for line in readback.compared(release, target, published, viewer) if read_back else ():
        click.echo(line)


@main.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--to", "layout", type=click.Choice(["neuronpedia", "original", "circuit-tracer"]), required=True, help="Who shall read it.")
@click.option("--release", type=click.Path(path_type=Path), default=RELEASE, help="Folder of the release.", show_default=True)
@click.option("--sae", "saes", multiple=True, metavar="ID", help="A dictionary to export instead of all; may be repeated.")
def export(out: Path, layout: str, release: Path, saes: tuple[str, ...]) -> None:
    """Write a release into the new folder OUT, in the layout that another tool reads."""
    from builders.exports.export import export as write_export
    from builders.releases.release import open_release

    for line in write_export(open_release(release), layout, out, saes):
        click.echo(line)
