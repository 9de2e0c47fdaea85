"""What the tests are made of: releases, processes, clusters, and the peers in which stock clients run."""
