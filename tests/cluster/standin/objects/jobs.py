"""What Jobs must be, and what of one may change (kubernetes/pkg/apis/batch/validation)."""

from __future__ import annotations

from collections.abc import Iterator

from ..status import FieldError, invalid, not_supported, required
from ..store import Object
from .pods import template_errors

_COUNTS = ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished")


def job_errors(job: Object) -> Iterator[FieldError]:
    """What is wrong with a Job, defaults filled in."""
    yield from job_spec_errors(job.get("spec", {}), "spec")
    spec = job.get("spec", {})
    generated = {"batch.kubernetes.io/controller-uid": job["metadata"].get("uid")}
    if not spec.get("manualSelector") and spec.get("selector", {}).get("matchLabels") != generated:
        yield FieldError("FieldValueInvalid", "spec.selector", "Invalid value: {…}: `selector` not auto-generated")


def job_spec_errors(spec: Object, path: str) -> Iterator[FieldError]:
    """What is wrong with the specification of a Job, or of a CronJob's Jobs."""
    for name in _COUNTS:
        if spec.get(name, 0) < 0:
            yield invalid(f"{path}.{name}", spec[name], "must be greater than or equal to 0")
    template = spec.get("template", {})
    yield from template_errors(template, f"{path}.template")
    restart = template.get("spec", {}).get("restartPolicy", "")
    if restart == "Always":
        yield required(f"{path}.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"')
    elif restart not in ("OnFailure", "Never"):
        yield not_supported(f"{path}.template.spec.restartPolicy", restart, ("OnFailure", "Never"))
    if spec.get("completionMode") not in ("NonIndexed", "Indexed"):
        yield not_supported(f"{path}.completionMode", spec.get("completionMode"), ("NonIndexed", "Indexed"))


def job_changes(before: Object, after: Object) -> Iterator[FieldError]:
    """What an update of a Job may not do (ValidateJobSpecUpdate). The template of a suspended Job is not looked at."""
    for name in ("completions", "selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "template"):
        new = after["spec"].get(name)
        if new != before["spec"].get(name):
            shown = "{…}" if isinstance(new, dict) else str(new)
            yield FieldError("FieldValueInvalid", f"spec.{name}", f"Invalid value: {shown}: field is immutable")
