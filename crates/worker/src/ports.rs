//! Sharing ports out among several workers and their nannies.

use oxidask_cli::PortSpec;

/// `--worker-port` or `--nanny-port` has fewer ports than there are workers.
#[derive(Debug, thiserror::Error)]
#[error("Not enough ports in range: --worker-port and --nanny-port must do for {0} workers")]
pub(crate) struct NotEnoughPorts(usize);

/// Ports to try, in order; empty: any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) worker: Vec<u16>,
    pub(crate) nanny: Vec<u16>,
}

/// Each of `count` workers gets ports of its own, in turn; a port that both ranges have goes to whoever
/// comes first.
pub(crate) fn apportion(
    worker: Option<&PortSpec>,
    nanny: Option<&PortSpec>,
    count: usize,
) -> Result<Vec<Ports>, NotEnoughPorts> {
    let listed = |spec: Option<&PortSpec>| -> Vec<u16> {
        let ports = spec.map(|spec| spec.candidates().filter(|port| *port != 0).collect());
        ports.unwrap_or_default()
    };
    let (workers, nannies) = (listed(worker), listed(nanny));
    let mut shares = vec![Ports::default(); count];
    let mut seen = std::collections::HashSet::new();
    let (mut next_worker, mut next_nanny) = (workers.iter(), nannies.iter());
    let mut turn = 0;
    loop {
        let mut given = false;
        let share = &mut shares[turn % count];
        if let Some(port) = next_worker.by_ref().find(|port| seen.insert(**port)) {
            share.worker.push(*port);
            given = true;
        }
        if let Some(port) = next_nanny.by_ref().find(|port| seen.insert(**port)) {
            share.nanny.push(*port);
            given = true;
        }
        if !given {
            break;
        }
        turn += 1;
    }
    let lacks = |share: &Ports| {
        (!workers.is_empty() && share.worker.is_empty())
            || (!nannies.is_empty() && share.nanny.is_empty())
    };
    if shares.iter().any(lacks) {
        return Err(NotEnoughPorts(count));
    }
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u16, last: u16) -> PortSpec {
        PortSpec::Range { first, last }
    }

    #[test]
    fn ports_are_dealt_in_turn() {
        let shares = apportion(Some(&range(1, 4)), None, 2).expect("enough");
        let workers: Vec<_> = shares.iter().map(|share| share.worker.clone()).collect();
        assert_eq!(workers, [vec![1, 3], vec![2, 4]]);
        assert!(shares.iter().all(|share| share.nanny.is_empty()));
    }

    #[test]
    fn no_port_is_given_twice() {
        let both = apportion(Some(&range(1, 4)), Some(&range(1, 4)), 2).expect("enough");
        let mut all: Vec<u16> = both
            .iter()
            .flat_map(|share| share.worker.iter().chain(&share.nanny).copied())
            .collect();
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3, 4]);
    }

    #[test]
    fn too_few_are_an_error_and_zero_is_any() {
        assert!(apportion(Some(&PortSpec::List(vec![3000])), None, 2).is_err());
        let any = apportion(Some(&PortSpec::List(vec![0])), None, 2).expect("any");
        assert_eq!(any, vec![Ports::default(); 2]);
    }
}
