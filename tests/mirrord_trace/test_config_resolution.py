"""Which source a value of the effective configuration comes from."""

from mirrord_trace.config.document import AgentSection, Document, FeatureSection, FilesSection, TargetSection
from mirrord_trace.config.resolution import DEFAULT, Source, resolved

FLAGS = Source("flags", Document(target=TargetSection(path="pod/a")), {"target.path": "--target"})
VARIABLES = Source(
    "environment",
    Document(target=TargetSection(path="pod/b"), agent=AgentSection(ttl=2)),
    {"target.path": "MIRRORD_IMPERSONATED_TARGET", "agent.ttl": "MIRRORD_AGENT_TTL"},
)
FILE = Source(
    "mirrord.json",
    Document(
        target=TargetSection(path="pod/c", namespace="shop"),
        agent=AgentSection(ttl=3),
        feature=FeatureSection(fs=FilesSection(mode="local")),
    ),
)


def test_the_first_source_that_sets_a_field_is_its_origin() -> None:
    found = resolved([FLAGS, VARIABLES, FILE])
    assert found.document == Document(
        target=TargetSection(path="pod/a", namespace="shop"),
        agent=AgentSection(ttl=2),
        feature=FeatureSection(fs=FilesSection(mode="local")),
    )
    assert found.origins == {
        "target.path": "--target",
        "target.namespace": "mirrord.json",
        "agent.ttl": "MIRRORD_AGENT_TTL",
        "feature.fs.mode": "mirrord.json",
    }


def test_what_no_source_sets_is_the_default() -> None:
    assert resolved([FILE]).origin("kubeconfig") == DEFAULT
    assert resolved([]).document == Document()


def test_false_is_said_as_well() -> None:
    said = Source("mirrord.json", Document(accept_invalid_certificates=False))
    assert resolved([said]).origin("accept_invalid_certificates") == "mirrord.json"
