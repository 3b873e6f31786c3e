"""TF_CONFIG: what is read from it, what is refused."""

from __future__ import annotations

import json

import pytest

from utils.cluster import Cluster, read_cluster
from utils.errors import ConfigError


def tf_config(cluster: object, kind: str = "worker", index: object = 0) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


@pytest.mark.parametrize("environment", [{}, {"TF_CONFIG": ""}])
def test_without_tf_config_a_process_is_alone_and_chief(environment: dict[str, str]) -> None:
    assert read_cluster(environment).count == 1
    assert read_cluster(environment).chief


def test_what_is_written_is_read_back() -> None:
    addresses = ("a:1", "b:2", "c:3")
    for index in range(3):
        assert read_cluster({"TF_CONFIG": Cluster(addresses).tf_config(index)}) == Cluster(addresses, index)


def test_a_chief_comes_first() -> None:
    jobs = {"worker": ["b:2", "c:3"], "chief": ["a:1"]}
    assert read_cluster(tf_config(jobs, "worker", 1)) == Cluster(("a:1", "b:2", "c:3"), 2, chiefs=1)
    assert read_cluster(tf_config(jobs, "chief")).chief
    assert not read_cluster(tf_config(jobs, "worker", 0)).chief


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"TF_CONFIG": "{worker"}, "cannot be understood"),
        ({"TF_CONFIG": "[]"}, "cannot be understood"),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}, "cannot be understood"),
        (tf_config({"worker": 3}), "cannot be understood"),
        (tf_config({"worker": ["a:1"]}, index="first"), "cannot be understood"),
        (tf_config({"worker": ["a:1", "b:2"]}, index=2), "'worker' 2: is not in its cluster of 2"),
        (tf_config({"worker": ["a:1", "b:2"]}, index=-1), "is not in its cluster"),
        (tf_config({"worker": ["a:1", "b:2"]}, kind="chief"), "is not in its cluster"),
        (tf_config({"worker": ["a:1", "a:1"]}), "is there twice"),
        (tf_config({"worker": ["a:1"], "ps": ["b:2"]}), "job 'ps': is not known"),
    ],
)
def test_mistakes_are_refused(environment: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=f"TF_CONFIG: .*{said}"):
        read_cluster(environment)
