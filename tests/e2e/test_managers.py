"""Stock's cluster managers (`SpecCluster`, `Adaptive`) start, scale and end our scheduler."""

import shlex

from harness.cluster import scheduler_words
from harness.peer import Peer
from harness.releases import python_of


def test_a_cluster_scales_adapts_and_closes(tmp_path, release):
    command = shlex.join(scheduler_words(release))
    peer = Peer(python_of(release), tmp_path, "client")
    try:
        peer.run("managers.scales_adapts_and_closes", "", command, ["--dashboard-address", "127.0.0.1:0"], timeout=150)
    finally:
        peer.stop()
