//! The lab's hand in L1: runs shell scripts that come over the command port and sends back what they say.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tests::lab::wire::{Kind, MAX_PAYLOAD, Message, PORT};

/// The port is one for all jobs; messages must not mix.
type Port = Arc<Mutex<File>>;

/// A running script.
struct Job {
    group: u32,
    stdin: Option<Sender<Vec<u8>>>,
}

type Jobs = Arc<Mutex<HashMap<u32, Job>>>;

fn main() -> io::Result<()> {
    let path = find_port()?;
    let mut input = OpenOptions::new().read(true).write(true).open(path)?;
    let port: Port = Arc::new(Mutex::new(input.try_clone()?));
    let jobs = Jobs::default();
    send(&port, &Message::new(0, Kind::Hello, b""));
    loop {
        let message = Message::read(&mut input)?;
        match message.kind {
            Kind::Exec => start(&port, &jobs, &message),
            Kind::Stdin => with_job(&jobs, message.job, |job| {
                if let Some(stdin) = &job.stdin {
                    // A script that reads no more is no error.
                    let _ = stdin.send(message.payload);
                }
            }),
            Kind::StdinEnd => with_job(&jobs, message.job, |job| job.stdin = None),
            Kind::Kill => with_job(&jobs, message.job, |job| {
                kill(job.group, &String::from_utf8_lossy(&message.payload));
            }),
            Kind::Hello | Kind::Stdout | Kind::Stderr | Kind::Exit => {}
        }
    }
}

/// There is no udev to name the ports: the kernel's own tree does.
fn find_port() -> io::Result<PathBuf> {
    for entry in fs::read_dir("/sys/class/virtio-ports")?.flatten() {
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == PORT {
            return Ok(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        format!("no virtio port is called {PORT}"),
    ))
}

fn send(port: &Port, message: &Message) {
    let mut port = port.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = message.write(&mut *port) {
        eprintln!("lab-agent: cannot send: {error}");
    }
}

fn with_job(jobs: &Jobs, number: u32, action: impl FnOnce(&mut Job)) {
    // A job that has just ended is no error: its exit message is on its way.
    if let Some(job) = jobs.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&number) {
        action(job);
    }
}

fn kill(group: u32, signal: &str) {
    let _ = Command::new("kill")
        .arg(format!("-{signal}"))
        .arg(format!("-{group}"))
        .status();
}

fn start(port: &Port, jobs: &Jobs, message: &Message) {
    let number = message.job;
    let script = String::from_utf8_lossy(&message.payload).into_owned();
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script).process_group(0);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            send(
                port,
                &Message::new(number, Kind::Stderr, format!("lab-agent: {error}\n").as_bytes()),
            );
            send(port, &Message::new(number, Kind::Exit, &127_i32.to_le_bytes()));
            return;
        }
    };
    let (port, jobs) = (Arc::clone(port), Arc::clone(jobs));
    let mut child = child;
    let stdin = child.stdin.take().map(|mut stdin| {
        let (sender, receiver) = mpsc::channel::<Vec<u8>>();
        // Its own thread, so that a script that does not read holds up nobody else.
        thread::spawn(move || receiver.iter().try_for_each(|bytes| stdin.write_all(&bytes)));
        sender
    });
    jobs.lock().unwrap_or_else(PoisonError::into_inner).insert(
        number,
        Job {
            group: child.id(),
            stdin,
        },
    );
    thread::spawn(move || attend(number, child, &port, &jobs));
}

/// Follows a script to its end.
fn attend(number: u32, mut child: Child, port: &Port, jobs: &Jobs) {
    let stdout = child
        .stdout
        .take()
        .map(|stream| forward(number, Kind::Stdout, stream, port));
    let stderr = child
        .stderr
        .take()
        .map(|stream| forward(number, Kind::Stderr, stream, port));
    let status = child.wait();
    // What the script left running may hold its output open; the lab waits for all of it only when nothing does.
    let readers = [stdout, stderr];
    let patience = std::time::Duration::from_millis(200);
    for reader in readers.into_iter().flatten() {
        for _ in 0..10 {
            if reader.is_finished() {
                break;
            }
            thread::sleep(patience);
        }
    }
    jobs.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
    let code = status.map_or(126, |status| {
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    });
    send(port, &Message::new(number, Kind::Exit, &code.to_le_bytes()));
}

fn forward(number: u32, kind: Kind, mut stream: impl Read + Send + 'static, port: &Port) -> thread::JoinHandle<()> {
    let port = Arc::clone(port);
    thread::spawn(move || {
        let mut buffer = vec![0; MAX_PAYLOAD];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            send(&port, &Message::new(number, kind, &buffer[..count]));
        }
    })
}
