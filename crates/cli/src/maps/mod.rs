//! `lodefs maps`: what programs have mapped of the files of volumes, and how.
//!
//! | module | question |
//! |---|---|
//! | `programs` | what do programs tell that map files by themselves? |
//! | `sockets` | at which sockets do they tell? |
//! | `kernel` | what does the kernel tell that it has mapped? |
//! | `show` | how is it shown? |

mod kernel;
mod programs;
mod show;
mod sockets;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use lodefs_direct::maps::{DurableBy, File, FileId, Pages};
use lodefs_fuse::mountinfo;
use rustix::fs::{major, makedev, minor};
use rustix::process::geteuid;

use crate::arguments::MapsArguments;
use crate::complain;
use crate::text::shown;
use programs::Told;

/// A range of addresses.
struct Mapped {
    start: u64,
    end: u64,
    offset: u64,
    /// Many ranges are of one file.
    file: Arc<File>,
    kind: Kind,
    writable: bool,
    sync: bool,
    /// Whether system calls may touch it where nothing is mapped yet.
    serves_system_calls: bool,
    durable_by: DurableBy,
    /// `None`: the kernel does not say.
    pages: Option<Pages>,
}

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Direct,
    Hole,
    Buffered,
    Untouched,
    Failing,
    /// A copy of the process's own.
    Private,
}

/// A process, and what it has mapped, by address.
struct Process {
    pid: u32,
    mapped: Vec<Mapped>,
    /// Why it is not known what it has mapped by itself.
    fault: Option<String>,
}

/// What is asked about.
enum Subject {
    Process(u32),
    File(FileId),
}

pub(crate) fn run(arguments: &MapsArguments) -> anyhow::Result<ExitCode> {
    let subject = Subject::named(&arguments.subject)?;
    let (processes, unseen) = match &subject {
        Subject::Process(pid) => (vec![of_process(*pid)?], 0),
        Subject::File(id) => of_file(*id)?,
    };
    if arguments.json {
        show::as_json(&processes, unseen)?;
    } else {
        show::as_table(&processes)?;
    }
    let mut status = ExitCode::SUCCESS;
    for Process { pid, fault, .. } in &processes {
        if let Some(fault) = fault {
            complain(&anyhow::anyhow!("process {pid}: {fault}"));
            status = ExitCode::FAILURE;
        }
    }
    for Process { pid, .. } in processes.iter().filter(|process| process.refuses_system_calls()) {
        complain(&anyhow::anyhow!(
            "process {pid}: may not serve the faults of system calls, which fail with EFAULT where it is untouched or a hole; \
             vm.unprivileged_userfaultfd=1 or access to /dev/userfaultfd would let it"
        ));
    }
    if unseen > 0 {
        let path = shown(&arguments.subject);
        let remedy = if geteuid().is_root() { "" } else { "; root may see more" };
        complain(&anyhow::anyhow!(
            "{path}: {unseen} of the processes may not be looked at, so whether they have it mapped is not known{remedy}"
        ));
    }
    Ok(status)
}

impl Process {
    /// Whether there is something that system calls cannot touch as the process itself can.
    fn refuses_system_calls(&self) -> bool {
        let is_open = |mapped: &Mapped| matches!(mapped.kind, Kind::Untouched | Kind::Hole);
        self.mapped.iter().any(|mapped| !mapped.serves_system_calls && is_open(mapped))
    }
}

impl Subject {
    /// A number is a process.
    fn named(name: &Path) -> anyhow::Result<Self> {
        let number = name.to_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        if let Some(number) = number {
            return Ok(Self::Process(
                number.parse().with_context(|| format!("{number}: not a process's number"))?,
            ));
        }
        // Not opened, which would hold it.
        let stat =
            rustix::fs::stat(name).map_err(io::Error::from).with_context(|| shown(name).to_string())?;
        if !devices("self")?.contains(&stat.st_dev) {
            bail!("{}: not on a mounted lodefs volume", shown(name));
        }
        if !fs::metadata(name)?.is_file() {
            bail!("{}: not a regular file; only those are mapped", shown(name));
        }
        Ok(Self::File(FileId::Host { device: stat.st_dev, inode: stat.st_ino }))
    }
}

/// The device numbers of the mounts of lodefs that a process sees.
fn devices(process: &str) -> io::Result<BTreeSet<u64>> {
    let mounts = mountinfo::mounts_seen_by(process)?;
    let lodefs = mounts.iter().filter(|mount| mount.is_lodefs());
    Ok(lodefs.map(|mount| makedev(mount.device.0, mount.device.1)).collect())
}

fn of_process(pid: u32) -> anyhow::Result<Process> {
    let explained = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => anyhow::anyhow!("process {pid}: there is none"),
        io::ErrorKind::PermissionDenied => {
            let remedy = if geteuid().is_root() { "" } else { "; ask as its user, or as root" };
            anyhow::anyhow!("process {pid}: may not be looked at{remedy}")
        }
        _ => anyhow::Error::from(error).context(format!("process {pid}")),
    };
    let devices = devices(&pid.to_string()).map_err(explained)?;
    let mut told = Told::Nothing;
    programs::ask_all(&[pid], |_, answer| told = answer);
    let is_meant = |id: FileId| matches!(id, FileId::Host { device, .. } if devices.contains(&device));
    let kernels = kernel::ranges(pid, is_meant).map_err(explained)?;
    Ok(joined(pid, told, kernels, |_| true))
}

/// All that have the file mapped, and how many could not be looked at. What is wrong with one process is said of that one.
fn of_file(id: FileId) -> anyhow::Result<(Vec<Process>, usize)> {
    let mut processes = Vec::new();
    let mut unseen = 0;
    programs::ask_all(&kernel::processes()?, |pid, told| match kernel::ranges(pid, |found| found == id) {
        Ok(kernels) => processes.push(joined(pid, told, kernels, |file| file.id == id)),
        // It has ended.
        Err(error) if programs::is_gone(&error) => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => unseen += 1,
        Err(error) => {
            processes.push(Process { pid, mapped: Vec::new(), fault: Some(error.to_string()) });
        }
    });
    processes.retain(|process| !process.mapped.is_empty() || process.fault.is_some());
    processes.sort_by_key(|process| process.pid);
    Ok((processes, unseen))
}

/// What a process tells, and what the kernel tells of the rest of its addresses.
fn joined(pid: u32, told: Told, mut kernels: Vec<Mapped>, is_meant: impl Fn(&File) -> bool) -> Process {
    let (census, fault) = match told {
        Told::Census(census) => (census, None),
        Told::Nothing => (lodefs_direct::maps::Census::default(), None),
        Told::Fault(fault) => (lodefs_direct::maps::Census::default(), Some(fault.to_owned())),
    };
    let is_told = |mapped: &Mapped| {
        let before_end = census.ranges.partition_point(|range| range.start < mapped.end);
        census.ranges[..before_end].last().is_some_and(|range| range.end > mapped.start)
    };
    // The kernel knows the names of files better.
    let named: HashMap<FileId, Arc<File>> =
        kernels.iter().map(|mapped| (mapped.file.id, Arc::clone(&mapped.file))).collect();
    kernels.retain(|mapped| !is_told(mapped));
    let mut mapped = kernels;
    let shown = |file: File| {
        let known = named.get(&file.id).filter(|_| file.name.is_none());
        is_meant(&file).then(|| known.map_or_else(|| Arc::new(file), Arc::clone))
    };
    let files: Vec<Option<Arc<File>>> = census.files.into_iter().map(shown).collect();
    for range in &census.ranges {
        if let Some(file) = &files[range.file as usize] {
            mapped.push(Mapped::told(range, Arc::clone(file)));
        }
    }
    mapped.sort_by_key(|mapped| mapped.start);
    Process { pid, mapped, fault }
}

impl Mapped {
    fn told(range: &lodefs_direct::maps::Range, file: Arc<File>) -> Self {
        use lodefs_direct::maps::Kind as Told;
        let kind = match range.kind {
            Told::Direct => Kind::Direct,
            Told::Hole => Kind::Hole,
            Told::Buffered => Kind::Buffered,
            Told::Untouched => Kind::Untouched,
            Told::Failing => Kind::Failing,
        };
        let lodefs_direct::maps::Range { start, end, offset, writable, sync, durable_by, pages, .. } = *range;
        let serves_system_calls = range.serves_system_calls;
        Self { start, end, offset, file, kind, writable, sync, serves_system_calls, durable_by, pages }
    }
}

/// A device number as the kernel writes it: `MAJOR:MINOR`.
fn device_text(device: u64) -> String {
    format!("{}:{}", major(device), minor(device))
}
