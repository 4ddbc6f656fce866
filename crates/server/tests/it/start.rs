//! The first start, and starts that are refused.

use crate::program::{Home, mode};

#[test]
fn first_start_makes_the_folder_and_says_what_is_open() {
    let home = Home::new();
    let mut program = home.start();
    assert_eq!(mode(&home.data()), 0o700);
    assert_eq!(mode(&home.data().join("cli.key")), 0o600);
    assert!(home.data().join("format").is_file());
    let doors = program.doors.clone();
    let block = program.said().to_owned();
    for part in [
        format!("mqtt://{}", doors["tcp"]),
        doors["kafka"].to_string(),
        format!("http://{}", doors["http"]),
        home.data().display().to_string(),
        "records 7 days".to_owned(),
        "documents 30 days".to_owned(),
        "not built yet".to_owned(),
        "not protected".to_owned(),
    ] {
        assert!(block.contains(&part), "{part} in {block}");
    }
    let topics = program.done("topic list");
    let names: Vec<&str> = topics
        .lines()
        .filter_map(|line| line.split('\t').next())
        .collect();
    assert_eq!(names, ["mqtt", "mqtt.commands"]);
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(program.http("GET", path, None).0, 200, "{path}");
    }
}

#[test]
fn address_of_other_machines_needs_a_word() {
    let home = Home::new();
    let open = ["--set", "listeners.tcp.bind=0.0.0.0:0"];
    let (code, said) = home.refused(&open);
    assert_eq!(code, 1);
    assert!(
        said.contains("listeners.tcp.allow_anonymous = true"),
        "{said}"
    );
    assert!(!home.data().exists(), "nothing was made");
    let allowed = [&open[..], &["--set", "listeners.tcp.allow_anonymous=true"]].concat();
    let mut program = home.start_with(&allowed);
    let said = program.said();
    assert!(said.contains("ANYONE WHO REACHES tcp on 0.0.0.0"), "{said}");
}

#[test]
fn taken_port_is_said_with_the_key_to_change() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (code, said) = Home::new().refused(&["--set", &format!("listeners.kafka.bind={address}")]);
    assert_eq!(code, 1);
    assert!(
        said.contains(&format!("listeners.kafka: {address} is taken")),
        "{said}"
    );
}

#[test]
fn data_directory_has_one_process() {
    let home = Home::new();
    let program = home.start();
    let (code, said) = home.refused(&[]);
    assert_eq!(code, 1);
    assert!(said.contains(&home.data().display().to_string()), "{said}");
    assert!(said.contains("another process"), "{said}");
    program.done("pub -t a -m x -q 1");
}

#[test]
fn data_directory_of_a_newer_program_is_refused() {
    let home = Home::new();
    home.start().stop();
    let format = home.data().join("format");
    let text = std::fs::read_to_string(&format).unwrap();
    std::fs::write(&format, text.replace('1', "900")).unwrap();
    let (code, said) = home.refused(&[]);
    assert_eq!(code, 1);
    assert!(said.contains("newer"), "{said}");
    std::fs::write(&format, text).unwrap();
    home.start();
}

#[test]
fn path_that_is_no_directory_is_refused() {
    let home = Home::new();
    std::fs::write(home.data(), "a file").unwrap();
    let (code, said) = home.refused(&[]);
    assert_eq!(code, 1);
    assert!(said.contains(&home.data().display().to_string()), "{said}");
}

#[test]
fn bad_configuration_is_refused_with_its_place() {
    let home = Home::new();
    home.configure("[log]\nretention_sm = 1\n");
    let (code, said) = home.refused(&[]);
    assert_eq!(code, 1);
    assert!(said.contains("headwater.toml:2:1"), "{said}");
    assert!(said.contains("retention_ms"), "the nearest key: {said}");
    home.configure("");
    for set in ["log.partitions=many", "log.nothing=1", "log"] {
        let (code, said) = home.refused(&["--set", set]);
        assert_eq!(code, 1, "{set}");
        assert!(said.contains("--set"), "{set}: {said}");
    }
}

#[test]
fn start_without_files_for_all_threads_is_refused() {
    let shards = ["--set", "mqtt.shards=256"];
    let (code, said) = Home::with_files(256).refused(&shards);
    assert_eq!(code, 1);
    assert!(said.contains("mqtt.shards"), "{said}");
    assert!(!said.contains("every door is open"), "{said}");
}
