//! The server, from its start to its end.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use lodefs_broker::{Broker, Policy};
use lodefs_core::{DaxPolicy, Fs, OpenOptions};
use lodefs_fuse::{Allow, MountOptions, Report as ReportSource, Session};
use lodefs_pmem::{Access, Domain, Medium, Reserve};
use rustix::mount::MountFlags;
use rustix::process::{getegid, geteuid};

use super::Request;
use super::ending::Ending;
use super::options::Attach;
use super::{ending, limits, memory};
use crate::report::{MountReport, Report, State};
use crate::text::shown;
use crate::volume::{self, NewVolume, Occupant};

/// Mounts, calls `announce` once the mount is usable, and serves until it is unmounted. Then closes the volume.
pub(crate) fn run(request: &Request, announce: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    memory::ask_to_be_spared();
    limits::raise();
    ending::outlive_signals()?;
    let is_new = request.create.is_some() && fs::create_dir(&request.directory).is_ok();
    let outcome = open(request).and_then(|fs| serve_and_close(request, &fs, announce));
    if outcome.is_err() && is_new {
        let _ = fs::remove_dir(&request.directory);
    }
    outcome
}

fn open(request: &Request) -> anyhow::Result<Arc<Fs>> {
    let path = request.volume.as_path();
    // Before anything happens to the volume.
    lodefs_fuse::resolve_target(&request.directory)?;
    let medium = open_medium(request)?;
    check_dax(request.options.dax, path, &medium)?;
    let options = OpenOptions {
        read_only: request.options.read_only(),
        commit_interval: Some(request.options.commit),
        no_atime: request.options.set.contains(MountFlags::NOATIME),
        no_dir_atime: request.options.set.contains(MountFlags::NODIRATIME),
        dax: request.options.dax,
        ..OpenOptions::default()
    };
    let fs = Fs::open(medium, &options).map_err(|error| volume::explain(path, error))?;
    log_recovery(path, &fs);
    Ok(fs)
}

fn serve_and_close(
    request: &Request,
    fs: &Arc<Fs>,
    announce: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let path = request.volume.as_path();
    let served = mount_and_serve(request, fs, announce);
    fs.close().map_err(|error| volume::explain(path, error)).context("not closed cleanly")?;
    tracing::info!(volume = %shown(path), "closed");
    served
}

fn mount_and_serve(
    request: &Request,
    fs: &Arc<Fs>,
    announce: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    limits::check()?;
    // Before there is a mount that a signal could leave behind.
    let signals = ending::signals()?;
    let broker = start_broker(request, fs)?;
    let session = mount(request, fs, broker.clone())?;
    let unmounter = session.unmounter();
    tracing::info!(volume = %shown(&request.volume), target = %shown(&unmounter.target()), "mounted");
    let outcome = Ending::on(signals, unmounter.clone(), Arc::clone(fs))
        .and_then(|()| announce())
        // Nothing of the tree of names is to be held by the server.
        .and_then(|()| std::env::set_current_dir("/").context("/"))
        .and_then(|()| session.serve().context("the connection to the kernel broke"));
    if let Some(broker) = broker {
        broker.stop();
    }
    if outcome.is_err() {
        unmounter.unmount(true)?;
    }
    outcome
}

/// Lets programs attach, if any may.
fn start_broker(request: &Request, fs: &Arc<Fs>) -> anyhow::Result<Option<Arc<Broker>>> {
    let policy = match request.options.attach {
        Attach::Owner => Policy::Owner(geteuid()),
        Attach::Group => Policy::Group(geteuid(), getegid()),
        Attach::Nobody => Policy::Nobody,
    };
    Broker::start(fs, policy).context("programs cannot attach")
}

fn open_medium(request: &Request) -> anyhow::Result<Medium> {
    let path = request.volume.as_path();
    if request.create.is_some()
        && matches!(volume::occupant(path)?, Occupant::Nobody | Occupant::EmptyFile(0) | Occupant::Unfinished)
    {
        let size = request.create;
        return volume::make(&NewVolume { path, size, label: "", uuid: None, reserve: Reserve::Full });
    }
    let access = if request.options.read_only() { Access::ReadOnly } else { Access::ReadWrite };
    volume::open(path, access)
}

/// A mount that asks for direct access to everything is refused where the medium cannot give it.
fn check_dax(dax: DaxPolicy, path: &Path, medium: &Medium) -> anyhow::Result<()> {
    let report = medium.report();
    if dax == DaxPolicy::Always && report.domain == Domain::Page {
        bail!(
            "{}: dax=always is impossible, because its medium has a page cache in between ({}); mount it with \
             dax=inode, or put the volume on persistent memory or tmpfs",
            shown(path),
            report.reason
        );
    }
    Ok(())
}

fn mount(request: &Request, fs: &Arc<Fs>, broker: Option<Arc<Broker>>) -> anyhow::Result<Session> {
    let options = &request.options;
    let source = options.source.clone().unwrap_or_else(|| request.volume.clone().into());
    let volume = request.volume.canonicalize().unwrap_or_else(|_| request.volume.clone());
    let about = MountReport {
        pid: std::process::id(),
        source: source.to_string_lossy().into_owned(),
        directory: request.directory.canonicalize().unwrap_or_else(|_| request.directory.clone()),
        read_only: options.read_only(),
        writeback: options.writeback,
        dax: options.dax.to_string(),
        attach: options.attach.to_string(),
        commit_s: options.commit.as_secs(),
        atime: options.atime().to_owned(),
        fault: None,
    };
    let everybody = if geteuid().is_root() { Allow::Everybody } else { Allow::Owner };
    let mount_options = MountOptions {
        flags: options.set,
        allow: options.allow.unwrap_or(everybody),
        writeback: options.writeback,
        report: Some(report_source(Arc::clone(fs), volume, about)),
        broker,
        ..MountOptions::new(source)
    };
    Ok(lodefs_fuse::mount(Arc::clone(fs), &request.directory, &mount_options)?)
}

fn report_source(fs: Arc<Fs>, volume: PathBuf, mount: MountReport) -> ReportSource {
    ReportSource(Arc::new(move || {
        let report = Report::of_open(volume.clone(), &fs, State::Mounted);
        // Only paths that are not text cannot be written as JSON; then there is no report.
        let fault = fs.fault();
        let read_only = mount.read_only || fault.is_some();
        let mount = MountReport { read_only, fault, ..mount.clone() };
        serde_json::to_vec(&Report { mount: Some(mount), ..report }).unwrap_or_default()
    }))
}

fn log_recovery(path: &Path, fs: &Fs) {
    let recovery = fs.recovery();
    if !recovery.was_clean {
        tracing::info!(
            volume = %shown(path),
            records = recovery.records_replayed,
            inodes = recovery.inodes_scanned,
            orphans = recovery.orphans_reclaimed,
            "recovered; it had not been closed",
        );
    }
    tracing::info!(volume = %shown(path), domain = %fs.domain(), "opened");
}
