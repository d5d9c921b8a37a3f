//! What happens in one schedule: all of it follows from its seed.

use std::time::Duration;

use fastrand::Rng;

/// What runs under the faults of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// Publishers and subscribers of streams.
    Streams,
    /// Processes that consume groups.
    Groups,
}

/// Where a schedule runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topology {
    /// One server for many schedules at a time, each node behind a proxy of its own.
    Links,
    /// One server that keeps nothing over a restart.
    Memory,
    /// One server with an append-only file.
    Aof,
    /// A primary, two replicas, three sentinels.
    Sentinel,
    /// Three primaries, three replicas.
    Cluster,
    /// No server: a directory, which one process after the other has.
    File,
}

/// What is done to servers and links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    Delay,
    Cut,
    CutMidway,
    HalfOpen,
    Frozen,
    SwallowOut,
    SwallowIn,
    KillData,
    KillListening,
    FlushScripts,
    OutputBuffer,
    OutOfMemory,
    FlushAll,
    RestartEmpty,
    Restart,
    FailedSave,
    Pause,
    KillPrimary,
    KillLonePrimary,
    KillReplica,
    KillSentinel,
    PausePrimary,
    FailOver,
    MoveSlots,
    KillWorker,
    KillAtRequest,
    KillAtReply,
    PauseWorker,
    DeleteGroup,
    DeleteSessions,
    DeleteStream,
    TrimStream,
}

/// The most that faults may lose of what was confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Loss {
    Nothing,
    /// What no replica had.
    Unreplicated,
    Everything,
}

/// A fault, and what is left to its seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// After what came before it is over.
    pub(crate) after: Duration,
    pub(crate) fault: Fault,
    pub(crate) lasts: Duration,
    /// Which of several it happens to.
    pub(crate) target: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    pub(crate) seed: u64,
    pub(crate) subject: Subject,
    pub(crate) topology: Topology,
    pub(crate) steps: Vec<Step>,
}

impl Subject {
    pub(crate) const ALL: [Self; 2] = [Self::Streams, Self::Groups];
}

impl Topology {
    pub(crate) const ALL: [Self; 6] =
        [Self::Links, Self::Memory, Self::Aof, Self::Sentinel, Self::Cluster, Self::File];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Links => "links",
            Self::Memory => "memory",
            Self::Aof => "aof",
            Self::Sentinel => "sentinel",
            Self::Cluster => "cluster",
            Self::File => "file",
        }
    }

    /// How many of a hundred schedules it gets: as many as take about the same time everywhere.
    fn weight(self, subject: Subject) -> u32 {
        match (subject, self) {
            (Subject::Streams, Self::Links) => 58,
            (Subject::Streams, Self::Memory) => 16,
            (Subject::Streams, Self::Aof) => 10,
            (Subject::Streams, Self::Sentinel | Self::Cluster) => 8,
            (Subject::Streams, Self::File) => 0,
            (Subject::Groups, Self::Links) => 52,
            (Subject::Groups, Self::Memory | Self::Aof) => 8,
            (Subject::Groups, Self::Sentinel | Self::Cluster) => 6,
            (Subject::Groups, Self::File) => 20,
        }
    }

    /// How many of its schedules run at a time: faults of links and of processes disturb nobody else.
    pub(crate) fn width(self) -> usize {
        match self {
            Self::Links => 6,
            Self::File => 3,
            _ => 1,
        }
    }

    /// Whether an append can be confirmed by a replica too.
    pub(crate) fn has_replicas(self) -> bool {
        matches!(self, Self::Sentinel | Self::Cluster)
    }

    /// The most steps of a schedule: a failover takes seconds.
    fn steps_max(self) -> usize {
        if self.has_replicas() { 2 } else { 3 }
    }

    fn faults(self, subject: Subject) -> &'static [Fault] {
        match subject {
            Subject::Streams => self.stream_faults(),
            Subject::Groups => self.group_faults(),
        }
    }

    fn group_faults(self) -> &'static [Fault] {
        use Fault::*;
        match self {
            Self::Links => &[
                KillWorker,
                KillAtRequest,
                KillAtRequest,
                KillAtReply,
                KillAtReply,
                PauseWorker,
                PauseWorker,
                Delay,
                Cut,
                CutMidway,
                HalfOpen,
                Frozen,
                SwallowOut,
                SwallowIn,
                KillData,
                KillListening,
                FlushScripts,
            ],
            Self::Memory => &[
                RestartEmpty,
                FlushAll,
                OutOfMemory,
                OutputBuffer,
                Pause,
                KillWorker,
                DeleteGroup,
                DeleteSessions,
                DeleteStream,
                TrimStream,
            ],
            Self::Aof => &[Restart, Restart, FailedSave, Pause, KillWorker, PauseWorker],
            Self::Sentinel => {
                &[KillPrimary, PausePrimary, FailOver, FailOver, KillReplica, KillWorker, KillData]
            }
            Self::Cluster => &[
                KillPrimary,
                PausePrimary,
                FailOver,
                MoveSlots,
                MoveSlots,
                KillReplica,
                KillWorker,
                KillData,
            ],
            Self::File => &[KillWorker],
        }
    }

    fn stream_faults(self) -> &'static [Fault] {
        use Fault::*;
        match self {
            Self::File => &[],
            Self::Links => &[
                Delay,
                Cut,
                Cut,
                CutMidway,
                CutMidway,
                HalfOpen,
                Frozen,
                Frozen,
                SwallowOut,
                SwallowIn,
                KillData,
                KillListening,
                FlushScripts,
            ],
            Self::Memory => {
                &[RestartEmpty, FlushAll, OutOfMemory, OutputBuffer, Pause, KillData, KillListening]
            }
            Self::Aof => &[Restart, Restart, FailedSave, Pause, KillData, KillListening],
            Self::Sentinel => &[
                KillPrimary,
                KillPrimary,
                KillLonePrimary,
                PausePrimary,
                RestartEmpty,
                FailOver,
                FailOver,
                KillReplica,
                KillSentinel,
                KillData,
                KillListening,
                FlushScripts,
            ],
            Self::Cluster => &[
                KillPrimary,
                KillPrimary,
                KillLonePrimary,
                PausePrimary,
                RestartEmpty,
                FailOver,
                FailOver,
                MoveSlots,
                MoveSlots,
                KillReplica,
                KillData,
                KillListening,
                FlushScripts,
            ],
        }
    }
}

impl Fault {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Delay => "link delayed",
            Self::Cut => "link cut",
            Self::CutMidway => "link cut in the middle",
            Self::HalfOpen => "link half-open",
            Self::Frozen => "link half-open, new ones not",
            Self::SwallowOut => "requests swallowed",
            Self::SwallowIn => "replies swallowed",
            Self::KillData => "CLIENT KILL TYPE normal",
            Self::KillListening => "CLIENT KILL TYPE pubsub",
            Self::FlushScripts => "SCRIPT FLUSH",
            Self::OutputBuffer => "output buffer full",
            Self::OutOfMemory => "-OOM",
            Self::FlushAll => "FLUSHALL",
            Self::RestartEmpty => "kill -9, restart empty",
            Self::Restart => "kill -9, restart, LOADING",
            Self::FailedSave => "-MISCONF",
            Self::Pause => "SIGSTOP",
            Self::KillPrimary => "kill -9 of a primary",
            Self::KillLonePrimary => "kill -9 of a primary whose replicas are behind",
            Self::KillReplica => "kill -9 of a replica",
            Self::KillSentinel => "kill -9 of a sentinel",
            Self::PausePrimary => "SIGSTOP of a primary",
            Self::FailOver => "planned failover",
            Self::MoveSlots => "slots moved",
            Self::KillWorker => "kill -9 of a worker",
            Self::KillAtRequest => "kill -9 of a worker after a request",
            Self::KillAtReply => "kill -9 of a worker after a reply",
            Self::PauseWorker => "SIGSTOP of a worker",
            Self::DeleteGroup => "DEL of a group's keys",
            Self::DeleteSessions => "DEL of a group's sessions or free records",
            Self::DeleteStream => "DEL of a stream",
            Self::TrimStream => "XTRIM",
        }
    }

    fn loss(self, topology: Topology) -> Loss {
        match self {
            Self::FlushAll | Self::RestartEmpty | Self::DeleteGroup | Self::DeleteStream => Loss::Everything,
            Self::KillPrimary | Self::KillLonePrimary | Self::PausePrimary => Loss::Unreplicated,
            // Sentinels promote a replica without waiting for it; a cluster's waits for its primary.
            Self::FailOver if topology == Topology::Sentinel => Loss::Unreplicated,
            _ => Loss::Nothing,
        }
    }
}

impl Schedule {
    pub(crate) fn of(subject: Subject, seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let mut ticket = random.u32(..100);
        let mut topology = Topology::Links;
        for candidate in Topology::ALL {
            topology = candidate;
            match ticket.checked_sub(candidate.weight(subject)) {
                Some(rest) => ticket = rest,
                None => break,
            }
        }
        let steps = (0..random.usize(1..=topology.steps_max()))
            .map(|_| Step::of(topology.faults(subject), &mut random));
        let steps = steps.collect();
        Self { seed, subject, topology, steps }
    }

    /// What runs, and where.
    pub(crate) fn label(&self) -> String {
        match self.subject {
            Subject::Streams => self.topology.name().to_owned(),
            Subject::Groups => format!("groups {}", self.topology.name()),
        }
    }

    pub(crate) fn loss(&self) -> Loss {
        let losses = self.steps.iter().map(|step| step.fault.loss(self.topology));
        losses.max().unwrap_or(Loss::Nothing)
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.steps.iter().any(|step| step.fault == fault)
    }
}

impl Step {
    fn of(faults: &[Fault], random: &mut Rng) -> Self {
        let fault = *random.choice(faults).expect("a topology has faults");
        // One in four is longer than a silent link is trusted (2.5 s).
        let lasts = if random.u32(..4) == 0 { random.u64(2_600..4_000) } else { random.u64(20..800) };
        Self {
            after: Duration::from_millis(random.u64(20..400)),
            fault,
            lasts: Duration::from_millis(lasts),
            target: random.usize(..1_000),
        }
    }
}
