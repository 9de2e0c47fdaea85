//! Abstract resources: what there is, and what running tasks hold of it.

use std::sync::Arc;

/// Sums of fractions differ from the whole by less than this.
const ROUNDING: f64 = 1e-9;

/// What one task takes. Names are sorted, amounts positive.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Needs(Arc<[(Arc<str>, f64)]>);

impl Needs {
    /// Of the restrictions of an order. Amounts that are no positive numbers need nothing.
    pub(crate) fn new(restrictions: &[(Arc<str>, f64)]) -> Self {
        if restrictions.is_empty() {
            return Self::default();
        }
        let mut needs: Vec<(Arc<str>, f64)> = Vec::new();
        for (name, amount) in restrictions {
            if amount.is_finite() && *amount > 0.0 && !needs.iter().any(|(n, _)| n == name) {
                needs.push((Arc::clone(name), *amount));
            }
        }
        needs.sort_by(|a, b| a.0.cmp(&b.0));
        Self(needs.into())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both need some of the same resource.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let mut names = self.0.iter();
        names.any(|(name, _)| other.0.iter().any(|(n, _)| n == name))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, f64)> {
        self.0.iter().map(|(name, amount)| (name, *amount))
    }
}

#[derive(Clone, Debug)]
struct Resource {
    name: Arc<str>,
    total: f64,
    used: f64,
    holders: u32,
}

/// What this worker offers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resources(Vec<Resource>);

impl Resources {
    pub(crate) fn new(totals: &[(Arc<str>, f64)]) -> Self {
        let mut resources = Self::default();
        for (name, total) in totals {
            resources.set_total(name, *total);
        }
        resources
    }

    /// Tasks that hold more than there is now keep it.
    pub(crate) fn set_total(&mut self, name: &Arc<str>, total: f64) {
        let total = if total.is_finite() {
            total.max(0.0)
        } else {
            0.0
        };
        match self.0.iter_mut().find(|r| r.name == *name) {
            Some(resource) => resource.total = total,
            None => self.0.push(Resource {
                name: Arc::clone(name),
                total,
                used: 0.0,
                holders: 0,
            }),
        }
    }

    /// Whether there is enough. Of what this worker does not offer there never is.
    pub(crate) fn suffice(&self, needs: &Needs) -> bool {
        needs.iter().all(|(name, amount)| {
            let resource = self.0.iter().find(|r| r.name == *name);
            resource.is_some_and(|r| r.total - r.used >= amount - ROUNDING)
        })
    }

    pub(crate) fn take(&mut self, needs: &Needs) {
        for (name, amount) in needs.iter() {
            if let Some(resource) = self.0.iter_mut().find(|r| r.name == *name) {
                resource.used += amount;
                resource.holders += 1;
            }
        }
    }

    pub(crate) fn give_back(&mut self, needs: &Needs) {
        for (name, amount) in needs.iter() {
            if let Some(resource) = self.0.iter_mut().find(|r| r.name == *name) {
                resource.holders = resource.holders.saturating_sub(1);
                // Rounding errors must not add up over the life of a worker.
                resource.used = match resource.holders {
                    0 => 0.0,
                    _ => (resource.used - amount).max(0.0),
                };
            }
        }
    }

    /// Name, total and what is held of it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, f64, f64)> {
        self.0.iter().map(|r| (&r.name, r.total, r.used))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(amount: f64) -> Needs {
        Needs::new(&[("GPU".into(), amount)])
    }

    #[test]
    fn fractions_add_up_to_the_whole() {
        let mut resources = Resources::new(&[("GPU".into(), 1.0)]);
        for _ in 0..10 {
            assert!(resources.suffice(&needs(0.1)));
            resources.take(&needs(0.1));
        }
        assert!(!resources.suffice(&needs(0.1)));
        for _ in 0..10 {
            resources.give_back(&needs(0.1));
        }
        assert!(
            resources
                .iter()
                .all(|(_, total, used)| total == 1.0 && used == 0.0)
        );
    }

    #[test]
    fn nonsense_needs_nothing_and_the_unknown_is_never_there() {
        let strange = [
            ("a".into(), f64::NAN),
            ("b".into(), -1.0),
            ("c".into(), 0.0),
        ];
        assert!(Needs::new(&strange).is_empty());
        assert!(!Resources::default().suffice(&needs(1.0)));
    }
}
