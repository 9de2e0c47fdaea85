//! The table of stock releases and environments: the one place to add a release to the tests.

use clap::ValueEnum;

/// A Python environment that some command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Environment {
    /// Name of its folder and of its file in `tests/requirements/`.
    pub name: &'static str,
    /// Minor versions of Python 3 its pins are made for, best first.
    pub pythons: &'static [u8],
    /// Variable that tells the path of its interpreter to tests.
    pub variable: &'static str,
}

/// The environment that has pytest and ruff, and no Dask.
pub(crate) const TOOLS: Environment = Environment {
    name: "tools",
    pythons: &[12, 13, 11],
    variable: "OXIDASK_PY_TOOLS",
};

/// The newest release with all its metrics.
pub(crate) const PROMETHEUS: Environment = Environment {
    name: "2026.8.0-prometheus",
    pythons: &[12, 13, 11],
    variable: "OXIDASK_PY_2026_8_0_PROMETHEUS",
};

/// Schemas of Kubernetes.
pub(crate) const MANIFESTS: Environment = Environment {
    name: "manifests",
    pythons: &[12, 13, 11],
    variable: "OXIDASK_PY_MANIFESTS",
};

/// Prefect flows over the two older releases.
pub(crate) const PREFECT: [Environment; 2] = [
    Environment {
        name: "prefect-0.13.19",
        pythons: &[8],
        variable: "OXIDASK_PY_PREFECT_0_13_19",
    },
    Environment {
        name: "prefect-1.4.1",
        pythons: &[9],
        variable: "OXIDASK_PY_PREFECT_1_4_1",
    },
];

/// The oldest release for the native worker, whose extension module needs Python 3.9.
pub(crate) const OLD_NATIVE: Environment = Environment {
    name: "2.30.1-py39",
    pythons: &[9],
    variable: "OXIDASK_PY_2_30_1_PY39",
};

/// Dask Gateway with its local backend.
pub(crate) const GATEWAY: Environment = Environment {
    name: "dask-gateway",
    pythons: &[12, 13, 11],
    variable: "OXIDASK_PY_DASK_GATEWAY",
};

/// A rival in the newest release's cluster, for measurements.
pub(crate) const FRISKY: Environment = Environment {
    name: "frisky",
    pythons: &[12, 13, 11],
    variable: "OXIDASK_PY_FRISKY",
};

/// The older release with what P2P shuffles need.
pub(crate) const P2P: Environment = Environment {
    name: "p2p-2022.12.0",
    pythons: &[9],
    variable: "OXIDASK_PY_P2P_2022_12_0",
};

/// Releases in between, each of which has P2P shuffles of another kind; only for `cargo xtask test --only p2p`.
pub(crate) const P2P_FURTHER: [Environment; 5] = [
    further("p2p-2023.8.0", "OXIDASK_PY_P2P_2023_8_0"),
    further("p2p-2023.10.0", "OXIDASK_PY_P2P_2023_10_0"),
    further("p2p-2024.2.0", "OXIDASK_PY_P2P_2024_2_0"),
    further("p2p-2024.8.0", "OXIDASK_PY_P2P_2024_8_0"),
    further("p2p-2024.12.1", "OXIDASK_PY_P2P_2024_12_1"),
];

const fn further(name: &'static str, variable: &'static str) -> Environment {
    Environment {
        name,
        pythons: &[10],
        variable,
    }
}

/// A release of stock Dask that the scheduler is tested with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Release {
    /// The newest.
    #[value(name = "2026.8.0")]
    New,
    /// Between Prefect 1 and the expressions.
    #[value(name = "2022.12.0")]
    Mid,
    /// Of the Prefect 0.13 era.
    #[value(name = "2.30.1")]
    Old,
}

impl Release {
    /// Every release, newest first.
    pub(crate) const ALL: [Self; 3] = [Self::New, Self::Mid, Self::Old];

    /// The version of `distributed`.
    pub(crate) fn version(self) -> &'static str {
        self.environment().name
    }

    /// Where its stock client and workers live.
    pub(crate) fn environment(self) -> Environment {
        match self {
            Self::New => Environment {
                name: "2026.8.0",
                pythons: &[12, 13, 11],
                variable: "OXIDASK_PY_2026_8_0",
            },
            Self::Mid => Environment {
                name: "2022.12.0",
                pythons: &[9],
                variable: "OXIDASK_PY_2022_12_0",
            },
            Self::Old => Environment {
                name: "2.30.1",
                pythons: &[8],
                variable: "OXIDASK_PY_2_30_1",
            },
        }
    }
}
