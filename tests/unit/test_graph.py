import gzip
import itertools
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.graph import parse_edges, scale_free
from demo.graph_file import read_graph
from fanline.errors import ConfigurationError


def test_an_edge_list_is_read_with_comments_blank_lines_and_any_white_space() -> None:
    graph = parse_edges([b"# people\n", b"ada bob # friends\n", b"\n", b"  bob\t\tcyd  \r\n", "ada zoë".encode()], "x")
    assert graph.names == ["ada", "bob", "cyd", "zoë"]
    assert graph.follows == [(0, 1), (1, 2), (0, 3)]
    assert graph.following(0) == [1, 3]
    assert graph.followers(1) == [0]
    assert graph.followers(0) == []


def test_repeated_edges_and_self_follows_are_left_out_and_counted() -> None:
    graph = parse_edges([b"a b", b"a b", b"b b", b"b a"], "x")
    assert graph.follows == [(0, 1), (1, 0)]
    assert graph.ignored == 2


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"a b\na b c\n", "line 2: expected a follower and a followee, found 3 words."),
        (b"a b\n\nalone\n", "line 3: expected a follower and a followee, found 1 word."),
        (b"a b\n\xff\xfe c\n", "line 2: the line is not UTF-8."),
        (b"a " + b"b" * 201, "line 1: a name is longer than 200 characters or has a NUL."),
        (b"# nothing\n", "holds no follows."),
        (b"", "holds no follows."),
        (b"\x1f\x8bnot gzip", "is damaged: it starts as gzip but cannot be unpacked."),
        (gzip.compress(b"a b\n" * 1000, mtime=0)[:-9], "is damaged: it starts as gzip but cannot be unpacked."),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence_that_names_file_and_line(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    path = tmp_path / "edges.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as error:
        read_graph(path)
    assert str(path) in str(error.value)
    assert str(error.value).endswith(sentence)


def test_a_file_that_is_not_there_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        read_graph(tmp_path / "none")
    with pytest.raises(ConfigurationError, match="Is a directory"):
        read_graph(tmp_path)


def test_a_compressed_file_is_read_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "edges"
    path.write_bytes(gzip.compress(b"a b\nb c\n"))
    assert read_graph(path).follows == [(0, 1), (1, 2)]


def test_a_large_file_is_read_in_seconds(tmp_path: Path) -> None:
    large = scale_free(80_000, 350_000)
    path = tmp_path / "edges.txt.gz"
    path.write_bytes(gzip.compress("".join(f"u{a} u{b}\n" for a, b in large.follows).encode(), compresslevel=1))
    started = time.monotonic()
    graph = read_graph(path)
    assert (len(graph.names), len(graph.follows)) == (80_000, 350_000)
    assert time.monotonic() - started < 20


@given(people=st.integers(2, 60), share=st.floats(0, 1), seed=st.integers(0, 1000))
def test_a_network_has_exactly_the_people_and_follows_asked_for(people: int, share: float, seed: int) -> None:
    follows = max(1, round(share * people * (people - 1)))
    graph = scale_free(people, follows, seed)
    assert len(graph.names) == people
    assert len(set(graph.follows)) == len(graph.follows) == follows
    assert all(a != b and 0 <= a < people and 0 <= b < people for a, b in graph.follows)
    following = Counter(itertools.chain(range(people), (follower for follower, _ in graph.follows)))
    assert max(following.values()) - min(following.values()) <= 1


def test_a_network_is_the_same_for_the_same_seed_only() -> None:
    assert scale_free(100, 900, seed=1).follows == scale_free(100, 900, seed=1).follows
    assert scale_free(100, 900, seed=1).follows != scale_free(100, 900, seed=2).follows


def test_a_network_has_a_few_people_with_very_many_followers() -> None:
    graph = scale_free(1_000, 20_000)
    followers = sorted((len(graph.followers(person)) for person in range(1_000)), reverse=True)
    assert followers[0] > 10 * 20
    assert followers[500] < 20
    assert sum(followers[:100]) > 20_000 * 0.3


@pytest.mark.parametrize(("people", "follows"), [(1, 1), (2, 3), (10, 0)])
def test_an_impossible_network_is_refused(people: int, follows: int) -> None:
    with pytest.raises(ConfigurationError):
        scale_free(people, follows)
