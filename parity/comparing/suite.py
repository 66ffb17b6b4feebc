"""Run a whole comparison: every target, dtype and check over all pairs of frameworks, on one device."""

from __future__ import annotations

import itertools
import os
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Callable

import specs
from convert.config.settings import stated_settings
from convert.errors import ConvertError, UsageError, called, install
from convert.files.hashing import sha256
from convert.installed import version
from convert.pages import use
from convert.progress import Status
from convert.running import dumps
from convert.targets import check_path
from convert.terminal import WIDTH, columns, wants_colour
from parity.given.several import every_target
from parity.given.targets import Target
from parity.judging.judge import Subject, judge
from parity.report import PAGE, Report, check_page, write_page
from parity.running.job import Job, Recordings, Run, run_here
from parity.running.processes import Processes
from parity.running.provenance import surroundings
from parity.running.recording import Recording, training
from parity.summaries import notes, report_text
from ports.frameworks import available, declared, quick_xla_flags
from specs.kinds import FRAMEWORKS
from specs.words import count, in_a_row


def run(arguments: Namespace) -> Report:
    """Build the report of a command line.

    Raises: ConvertError for targets that are not there or do not fit, and where no two frameworks can run one.
    """
    use(arguments.spec)
    settings = stated_settings(arguments)
    options = {name: getattr(arguments, name) for name in ("seed", "src", "assume", "weights", "step")}
    chosen = every_target(arguments.targets, settings, options)
    if arguments.report:
        check_page(arguments.report)
        check_path([target.path for target in chosen if target.path], arguments.report, arguments.force, PAGE)
    _require_two(chosen, arguments)
    _prepare(chosen, arguments)
    runs, total = itertools.count(1), len(chosen) * len(arguments.dtype) * len(arguments.frameworks)
    report = Report(about=_about(chosen, arguments))
    with Status() as status, Processes() as processes:
        run_job: Run = processes if arguments.isolate else run_here
        for target, dtype in itertools.product(chosen, arguments.dtype):
            report += _compare(
                run_job, target, dtype, arguments, lambda what: status.show(f"{next(runs)}/{total} {what}")
            )
    if not any(r.curve for r in report):  # no model's outputs were looked at
        for label in ("batch", "training", "images"):
            report.about.pop(label, None)
    return report


ONE = (
    "`convert ROUTE FILE --prove` and `convert diff A B` work with one framework, or none",
    "in Python, `parity.compare` compares two models of one framework",
)


def _require_two(chosen: list[Target], arguments: Namespace) -> None:
    """Check, before any model runs, that some target can run in two frameworks; a GPU is compared with the CPU too."""
    if arguments.device != "cpu":
        return
    there = [framework for framework in arguments.frameworks if framework in available()]
    if len(arguments.frameworks) < 2:
        missing = [framework for framework in FRAMEWORKS if framework not in available()]
        remedy = f": {install(missing[0])}" if len(missing) == len(FRAMEWORKS) - 1 else ""
        raise UsageError(f"--frameworks: a comparison needs two of them{remedy}", ONE)
    if len(there) < 2:
        lacking = next(framework for framework in arguments.frameworks if framework not in there)
        which, asked = f"only {there[0]}" if there else "none", in_a_row(arguments.frameworks)
        raise ConvertError(
            f"a comparison needs two frameworks; of {asked}, {which} is installed: {install(lacking)}", ONE
        )
    ports = {t.architecture: [f for f in there if declared(t.architecture, f)] for t in chosen}
    if all(len(runs) < 2 for runs in ports.values()):
        which = "; ".join(f"the page of {name} has {in_a_row(runs) or 'none'}" for name, runs in ports.items())
        raise ConvertError(f"a comparison needs ports in two frameworks; of {in_a_row(there)}, {which}")


def _prepare(chosen: list[Target], arguments: Namespace) -> None:
    """Change settings that frameworks read when they are imported, unless the user has set them."""
    small = all(target.small for target in chosen)
    if small:  # 16 threads, which wait for each other on busy cores, took 65 s for what JAX computed in 15
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    if arguments.device == "cpu":
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        if small:
            os.environ.setdefault("XLA_FLAGS", quick_xla_flags())
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # for every library: no TF32 behind a framework's back
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leaves GPU memory to the other frameworks


def _compare(run_job: Run, target: Target, dtype: str, arguments: Namespace, say: Callable[[str], None]) -> Report:
    recorded: list[Recordings] = []
    twins: list[list[Recordings]] = []
    for framework in arguments.frameworks:
        say(f"{target.architecture}:{target.variant} {dtype} {framework}")
        recordings = _record(run_job, target, framework, dtype, arguments.device, arguments, recorded)
        recorded.append(recordings)
        if arguments.device == "gpu":
            twins.append([_on_cpu(run_job, target, framework, dtype, arguments, recordings), recordings])
    report = Report()
    for check in arguments.check:
        about = target.architecture, target.variant, check, dtype, arguments.device
        subject = Subject(*about, target.assumptions(), target.suggestions())
        for group in [recorded, *twins]:
            report += Report(judge(subject, [recordings[check] for recordings in group]))
    return report


def _record(
    run_job: Run, target: Target, framework: str, dtype: str, device: str,
    arguments: Namespace, recorded: list[Recordings], label: str = "",
) -> Recordings:  # fmt: skip
    """Return one framework's recordings; the first framework that ran is the reference of single steps."""
    reference = next((r for r in recorded if not any(recording.cause for recording in r.values())), {})
    feeds = {check: reference[check] for check in arguments.check if check == "single-step" and check in reference}
    job = Job(target, framework, dtype, device, tuple(arguments.check), arguments.batch, arguments.steps)
    return run_job(job, feeds, label)


def _on_cpu(
    run_job: Run, target: Target, framework: str, dtype: str, arguments: Namespace, gpu: Recordings
) -> Recordings:
    """Return the same framework on the CPU; nothing where the GPU has nothing to show, which alone is the reason."""
    if all(recording.cause for recording in gpu.values()):
        return {check: Recording(f"{framework}@cpu", framework, dtype, "cpu") for check in gpu}
    return _record(run_job, target, framework, dtype, "cpu", arguments, [], f"{framework}@cpu")


def _about(chosen: list[Target], arguments: Namespace) -> dict[str, str]:
    """Return what was run on what, by label."""
    weights = " and random weights" * any(target.path is None for target in chosen)
    about = {"command": arguments.command}
    if arguments.report and not arguments.force:
        about["to repeat"] = f"{arguments.command} --force"  # the file exists by now
    about |= {"seed": f"{arguments.seed} (images{weights})"}
    about["batch"] = count(arguments.batch, "image")
    if "train" in arguments.check:
        about["training"] = training(arguments.steps)
    about |= surroundings(arguments.device)
    about |= {f: version(f) if f in available() else "not installed" for f in arguments.frameworks}
    return about | _models(chosen, arguments.batch)


def _models(chosen: list[Target], batch: int) -> dict[str, str]:
    """State the architecture, variant, settings and input of each model, and the hash of each checkpoint."""
    about: dict[str, str] = {}
    usual = _usual(chosen)
    for target in chosen:
        name = f"{target.architecture}:{target.variant}"
        fields = {
            "settings": _unlike(target.settings_with_origins(), usual[target.architecture]),
            "images": [_images(target, batch)],
        }
        for label, texts in fields.items():
            if texts:
                about[label] = "; ".join(filter(None, [about.get(label), f"{name}: {', '.join(texts)}"]))
        if target.path:
            about[target.path] = f"sha256 {sha256(target.path)}"
    listed = dict.fromkeys(f"{target.architecture}:{target.variant}" for target in chosen)
    shared = [
        f"{name}, where a model states no other: {', '.join(some.values())}" for name, some in usual.items() if some
    ]
    about["settings"] = "; ".join(filter(None, [*shared, about.get("settings")]))
    return {"models": "; ".join(listed)} | about


def _images(target: Target, batch: int) -> str:
    """Write the shape of the images that a model is run on: "[2, 3, 224, 224]"."""
    config = target.config()
    shape = [batch, *specs.get(target.architecture).input_shape(config)]
    return f"{shape}{' (assumed, as no size is stated)' * (getattr(config, 'image', 0) is None)}"


def _usual(chosen: list[Target]) -> dict[str, dict[str, str]]:
    """Return the settings that most models of each architecture have; none where there is one model."""
    counts: dict[str, dict[str, Counter[str]]] = {}
    models = Counter(target.architecture for target in chosen)
    for target in chosen:
        fields = counts.setdefault(target.architecture, {})
        for name, text in target.settings_with_origins().items() if models[target.architecture] > 1 else ():
            fields.setdefault(name, Counter())[text] += 1
    return {
        architecture: {
            name: texts.most_common(1)[0][0] for name, texts in fields.items() if texts.most_common(1)[0][1] > 1
        }
        for architecture, fields in counts.items()
    }


def _unlike(settings: dict[str, str], usual: dict[str, str]) -> list[str]:
    """List the settings that are not the usual ones, and those that are not set."""
    unset = [f"{name}=None" for name in usual if name not in settings]
    return [text for name, text in settings.items() if text != usual.get(name)] + unset


def finish(report: Report, arguments: Namespace) -> int:
    """Write and print a report; return the exit status."""
    if arguments.report:  # first, since whoever reads what is printed may go away
        write_page(arguments.report, report.to_html())
    if arguments.quiet and report.passed and not arguments.json:
        return 0
    if not arguments.json:
        colour = wants_colour(sys.stdout)
        width = columns(sys.stdout) or WIDTH
        print(report_text.render(report.results, colour, arguments.report or "", width), flush=True)
        return 0 if report.passed else 1
    print(dumps(report.rows()), flush=True)
    for cause in notes.causes(report.results):
        if cause.grade == "not run":
            print(f"{called('parity')}: {cause}", file=sys.stderr)
    if not any(r.curve for r in report):
        print(f"{called('parity')}: nothing was compared", file=sys.stderr)
    return 0 if report.passed else 1
