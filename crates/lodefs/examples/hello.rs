//! Makes a volume, writes a file, and reads it back after opening the volume again.
//!
//! `cargo run -p lodefs --example hello [VOLUME]`

use std::io;
use std::path::Path;

use lodefs::Volume;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    print!("{}", run(&arguments)?);
    Ok(())
}

/// The whole program: takes its arguments, and returns what it prints.
pub fn run(arguments: &[String]) -> io::Result<String> {
    let path = Path::new(arguments.first().map_or("hello.vol", String::as_str));
    let volume = if path.exists() { Volume::open(path)? } else { Volume::create(path, 16 << 20)? };
    volume.create_dir_all("greetings")?;
    volume.write("greetings/hello", "hello, world\n")?;
    volume.close()?;

    let volume = Volume::open(path)?;
    let text = volume.read_to_string("greetings/hello")?;
    Ok(format!("{text}(from {})\n", volume.domain()))
}
