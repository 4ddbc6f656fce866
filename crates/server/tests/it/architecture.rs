//! ARCHITECTURE.md names files and functions; they are there.

use std::path::Path;

#[test]
fn the_way_of_a_publish_leads_through_functions_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let (_, way) = text.split_once("## The way of a PUBLISH").unwrap();
    let (way, _) = way.split_once("\n## ").unwrap();
    let mut files = Vec::new();
    let mut named = 0;
    for span in way.split('`').skip(1).step_by(2) {
        let mut among = 1;
        let names = match span.split_once(".rs") {
            Some((path, names)) => {
                let path = root.join("crates").join(format!("{path}.rs"));
                files.insert(0, std::fs::read_to_string(&path).expect(span));
                names.trim_start_matches(": ")
            }
            // Functions of a file that was named before, unless it is a plain word.
            None if span.contains('_') && !span.contains("::") => {
                among = files.len();
                span
            }
            None => continue,
        };
        for name in names.split(", ").filter(|name| !name.is_empty()) {
            let heads = [format!("fn {name}("), format!("fn {name}<")];
            let mut among = files.iter().take(among);
            let is_there = among.any(|file| heads.iter().any(|head| file.contains(head)));
            assert!(is_there, "{name} of `{span}`");
            named += 1;
        }
    }
    assert!(named > 50, "{named}");
}
