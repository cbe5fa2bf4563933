//! A program that has mapped a file, and does what it is told on its standard input.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use lodefs_direct::{MapOptions, Mapping, MappingKind};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// The environment variable that names the file.
pub(crate) const FILE: &str = "LODEFS_TEST_FILE";

/// A program, seen from the test.
pub(crate) struct Program {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Program {
    /// Starts one that maps the first `size` bytes of a file. It is this test program, with the test that is none.
    pub(crate) fn start(file: &Path, size: usize, kind: MappingKind) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["a_program", "--exact", "--ignored", "--nocapture", "--quiet"])
            .env(FILE, file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut program = Self { child, input, output };
        assert_eq!(program.tell(&format!("map {size}")), format!("{kind:?}"));
        program
    }

    /// Tells it to do something, and returns what it answers: nothing, if it has died of it.
    pub(crate) fn tell(&mut self, command: &str) -> String {
        self.begin(command);
        self.answer()
    }

    /// Tells it to do something, without waiting.
    pub(crate) fn begin(&mut self, command: &str) {
        writeln!(self.input, "{command}").unwrap();
    }

    /// What it answers.
    pub(crate) fn answer(&mut self) -> String {
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).unwrap() == 0 {
                return String::new();
            }
            // What the test harness says is not meant.
            if let Some(answer) = line.strip_prefix("= ") {
                return answer.trim_end().to_owned();
            }
        }
    }

    pub(crate) fn read(&mut self, offset: u64) -> u8 {
        self.tell(&format!("read {offset}")).parse().unwrap()
    }

    pub(crate) fn write(&mut self, offset: u64, value: u8) {
        assert_eq!(self.tell(&format!("write {offset} {value}")), "done");
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Stops it, and returns when it has stopped.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
        waitpid(Some(self.pid()), WaitOptions::UNTRACED).unwrap();
    }

    /// The signal that it dies of.
    pub(crate) fn death(mut self) -> Option<i32> {
        self.child.wait().unwrap().signal()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the program does.
pub(crate) fn run() {
    let Some(file) = std::env::var_os(FILE) else { return };
    let mut mapping = None;
    let mut lines = std::io::stdin().lines();
    while let Some(Ok(line)) = lines.next() {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<usize>().unwrap();
        let answer = if words[0] == "map" {
            let file = OpenOptions::new().read(true).write(true).open(&file).unwrap();
            let options = MapOptions { offset: 0, size: number(1), writable: true, sync: false };
            let mapped = lodefs_direct::map(&file, &options).unwrap();
            let kind = mapped.kind();
            mapping = Some(mapped);
            format!("{kind:?}")
        } else if words[0] == "churn" {
            churn(file.clone().into(), number(1));
            "done".into()
        } else if words[0] == "fork-elsewhere" {
            without_mapping(&mut mapping)
        } else {
            access(mapping.as_ref().unwrap(), &words, &number)
        };
        println!("= {answer}");
    }
}

fn access(mapping: &Mapping, words: &[&str], number: &(dyn Fn(usize) -> usize + Sync)) -> String {
    match words[0] {
        "read" => {
            let mut byte = [0];
            mapping.read(number(1), &mut byte).unwrap();
            byte[0].to_string()
        }
        "write" => {
            mapping.write(number(1), &[number(2) as u8]).unwrap();
            "done".into()
        }
        "count" => {
            // Adds one to every byte of every page, again and again.
            for _ in 0..number(2) {
                for page in 0..number(1) {
                    let mut byte = [0];
                    mapping.read(page * 4096, &mut byte).unwrap();
                    mapping.write(page * 4096, &[byte[0].wrapping_add(1)]).unwrap();
                }
            }
            "done".into()
        }
        "race" => {
            // Each of 16 threads touches all pages, and stores a byte of its own to each.
            std::thread::scope(|scope| {
                for thread in 0..16 {
                    scope.spawn(move || {
                        for page in 0..number(1) {
                            mapping.write(page * 4096 + number(2) * 16 + thread, &[1]).unwrap();
                        }
                    });
                }
            });
            "done".into()
        }
        "sync" => mapping.sync().map_or_else(|error| error.to_string(), |()| "done".into()),
        "kind" => format!("{:?}", mapping.kind()),
        "fork" => in_child(mapping, number(1), number(2) as u8),
        "child" => waiting_child(),
        other => panic!("what is {other}?"),
    }
}

/// Writes in a forked child, and tells what the parent reads then, and what the child has read.
fn in_child(mapping: &Mapping, at: usize, value: u8) -> String {
    let mut before = [0];
    mapping.read(at, &mut before).unwrap();
    // SAFETY: the child does nothing but access the mapping, which is made for that, and end.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut seen = [0];
        let status = match mapping.read(at, &mut seen).and_then(|()| mapping.write(at, &[value])) {
            Ok(()) => i32::from(seen[0] != before[0]),
            Err(_) => 2,
        };
        // SAFETY: ends the child, without what the parent would do at its end.
        unsafe { libc::_exit(status) }
    }
    let status = waitpid(Pid::from_raw(child), WaitOptions::empty()).unwrap().unwrap().1;
    let mut after = [0];
    mapping.read(at, &mut after).unwrap();
    format!("{:?} {}", status.exit_status(), after[0])
}

/// Forks a child that waits until its parent has ended, and tells its number when it waits.
fn waiting_child() -> String {
    let (mut heard, mut said) = std::io::pipe().unwrap();
    // SAFETY: the child says that it is there, and waits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: asks for a signal only.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        said.write_all(b"!").unwrap();
        loop {
            // SAFETY: waits only.
            unsafe { libc::pause() };
        }
    }
    heard.read_exact(&mut [0]).unwrap();
    child.to_string()
}

/// Maps so many bytes, stores to some and unmaps them, again and again, until the program ends.
fn churn(file: PathBuf, size: usize) {
    std::thread::spawn(move || {
        let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
        for round in 0.. {
            let options = MapOptions { offset: 0, size, writable: true, sync: false };
            let mapped = lodefs_direct::map(&file, &options).unwrap();
            for page in (round % 2..size / 4096).step_by(2) {
                mapped.write(page * 4096, &[1]).unwrap();
            }
        }
    });
}

/// Forks a child where the server cannot be reached, which gives up the mapping.
fn without_mapping(mapping: &mut Option<Mapping>) -> String {
    // SAFETY: another name space for sockets does not concern memory.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
    // SAFETY: the child drops the mapping, which is made for that, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(mapping.take());
        // SAFETY: ends the child, without what the parent would do at its end.
        unsafe { libc::_exit(0) }
    }
    let status = waitpid(Pid::from_raw(child), WaitOptions::empty()).unwrap().unwrap().1;
    format!("{:?}", status.exit_status())
}
