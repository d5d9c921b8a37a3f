//! The servers that tests and benchmarks use, handed to them by environment variables.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result};
use tidewire_fleet::{
    Acl, Certificates, Cluster, Persistence, Sentinel, Server, Standalone, Tls, valkey_program,
};

use crate::provision;
use crate::stage::Stages;

/// Why a machine has no column for Valkey; tests print it.
const NO_VALKEY: &str = "valkey-server is not on the PATH; install valkey to test on it too";

/// The servers. Dropping them stops them.
pub(crate) struct Services {
    program: PathBuf,
    standalone: Standalone,
    append_only: Standalone,
    tls: Tls,
    acl: Acl,
    sentinel: Sentinel,
    cluster: Cluster,
    valkey: Option<Standalone>,
}

impl Services {
    /// Finds or installs Redis and starts what tests need.
    pub(crate) fn start(stages: &mut Stages) -> Result<Services> {
        let [program] = stages.run("find redis", |stages| provision::provide(stages, [&provision::REDIS]))?;
        stages.run("start redis", |stages| {
            let services = Services::start_all(&program)?;
            for (name, url, _) in services.columns() {
                stages.note(name, url);
            }
            if services.valkey.is_none() {
                stages.note("valkey", NO_VALKEY);
            }
            Ok(services)
        })
    }

    /// Starts them side by side: a cluster and sentinels take seconds to agree.
    fn start_all(program: &Path) -> Result<Services> {
        thread::scope(|scope| {
            let sentinel = scope.spawn(|| Sentinel::start(program));
            let cluster = scope.spawn(|| Cluster::start(program));
            let standalone = Standalone::start(program, Persistence::Nothing)?;
            let append_only = Standalone::start(program, Persistence::AppendOnlyFile)?;
            let (tls, acl) = (Tls::start(program)?, Acl::start(program)?);
            let valkey = valkey_program().map(|valkey| Standalone::start(&valkey, Persistence::Nothing));
            Ok(Services {
                program: program.to_owned(),
                standalone,
                append_only,
                tls,
                acl,
                valkey: valkey.transpose()?,
                sentinel: sentinel.join().ok().context("starting sentinels panicked")??,
                cluster: cluster.join().ok().context("starting a cluster panicked")??,
            })
        })
    }

    /// Tells `command` where the services are: `TIDEWIRE_TEST_X_URL` for an engine, and for each the plain addresses of
    /// its servers, with who may do everything there, in `TIDEWIRE_TEST_X_ADMIN`; and where a
    /// certificate for this machine is.
    pub(crate) fn tell<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env(provision::REDIS.setting(), &self.program);
        let Certificates { server, .. } = self.tls.certificates();
        command.env("TIDEWIRE_TEST_CERTIFICATE", &server.certificate).env("TIDEWIRE_TEST_KEY", &server.key);
        for (name, url, admin) in self.columns() {
            let name = name.to_uppercase().replace('-', "_");
            command.env(format!("TIDEWIRE_TEST_{name}_URL"), url);
            command.env(format!("TIDEWIRE_TEST_{name}_ADMIN"), admin);
        }
        command
    }

    /// Who signed the certificate, in PEM.
    pub(crate) fn authority(&self) -> &Path {
        &self.tls.certificates().authority
    }

    /// Each topology: its name, the URL of an engine, and the admin addresses, with commas between.
    fn columns(&self) -> Vec<(&'static str, String, String)> {
        let one = |server: &Server| server.admin.url();
        let all = |servers: &[Server]| {
            let urls: Vec<String> = servers.iter().map(one).collect();
            urls.join(",")
        };
        let mut columns = vec![
            ("redis", self.standalone.url(), one(&self.standalone.server)),
            ("redis-aof", self.append_only.url(), one(&self.append_only.server)),
            ("redis-tls", self.tls.url(), one(&self.tls.server)),
            ("redis-acl", self.acl.url(), one(&self.acl.server)),
            ("redis-sentinel", self.sentinel.url(), all(&self.sentinel.servers)),
            ("redis-cluster", self.cluster.url(), all(&self.cluster.servers)),
        ];
        columns.extend(self.valkey.as_ref().map(|valkey| ("valkey", valkey.url(), one(&valkey.server))));
        columns
    }
}
