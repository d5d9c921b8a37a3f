//! What a page of metrics has to be, as OpenMetrics 1.0 has it: enough of it to notice what a strict reader would refuse.

use std::collections::{BTreeMap, BTreeSet};

/// A page that was read: each sample by its name and labels, as they stand there.
pub(crate) struct Page(BTreeMap<String, f64>);

/// What has been said of the family that lines belong to now.
#[derive(Default)]
struct Family {
    name: String,
    kind: String,
    /// Buckets of the histogram that is being read: its labels, the last bound and count.
    bucket: Option<(String, f64, f64)>,
}

impl Page {
    /// Reads a page; panics at what is wrong with it.
    #[track_caller]
    pub(crate) fn read(text: &str) -> Self {
        let lines = text.strip_suffix("# EOF\n").expect("it ends with # EOF");
        let (mut samples, mut families, mut family) = (BTreeMap::new(), BTreeSet::new(), Family::default());
        for line in lines.lines() {
            if let Some(described) = line.strip_prefix("# ") {
                let [what, name, rest] = described.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                    panic!("{line}")
                };
                if name != family.name {
                    assert!(families.insert(name.to_owned()), "{name} comes in two parts");
                    family = Family { name: name.to_owned(), ..Family::default() };
                }
                if what == "TYPE" {
                    family.kind = rest.to_owned();
                }
                continue;
            }
            let (name, value) = line.rsplit_once(' ').unwrap();
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
            family.take(name, value);
            assert!(samples.insert(name.to_owned(), value).is_none(), "twice: {line}");
        }
        Self(samples)
    }

    /// The value of a sample; `None` where there is no such line.
    pub(crate) fn get(&self, sample: &str) -> Option<f64> {
        self.0.get(sample).copied()
    }

    /// The same of one that has to be there.
    #[track_caller]
    pub(crate) fn value(&self, sample: &str) -> f64 {
        self.get(sample).unwrap_or_else(|| panic!("{sample} is not in {:#?}", self.0))
    }
}

impl Family {
    /// Checks that a sample may stand in this family.
    fn take(&mut self, sample: &str, value: f64) {
        let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
        let labels = labels.strip_suffix('}').unwrap();
        let suffix =
            name.strip_prefix(self.name.as_str()).unwrap_or_else(|| panic!("{sample} in {}", self.name));
        match (&*self.kind, suffix) {
            ("counter", "_total") => assert!(value >= 0.0, "{sample}"),
            ("gauge", "") => {}
            ("histogram", "_sum") => {}
            ("histogram", "_count") => {
                let (_, bound, count) =
                    self.bucket.take().filter(|(of, ..)| of == labels).unwrap_or_default();
                // A count stands before or behind its buckets.
                assert!(bound == 0.0 || (bound.is_infinite() && count == value), "{sample}");
            }
            ("histogram", "_bucket") => self.take_bucket(labels, value),
            other => panic!("{sample}: {other:?}"),
        }
    }

    fn take_bucket(&mut self, labels: &str, value: f64) {
        let (bound, labels) = labels.strip_prefix("le=\"").unwrap().split_once('"').unwrap();
        let labels = labels.trim_start_matches(',').to_owned();
        let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
        if let Some((of, before, count)) = self.bucket.take().filter(|(of, ..)| *of == labels) {
            assert!(before < bound && count <= value, "buckets of {} {of}", self.name);
        }
        self.bucket = Some((labels, bound, value));
    }
}
