//! Where the data lies: finding DIR, making it, and the key by which local verbs are let in.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use headwater_commitlog::fs::{Fs, Open, read_full_at, write_all_at};

/// Why there is no data directory to work with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    #[error("no data directory: give --data-dir, or set HEADWATER_DATA_DIR or HOME")]
    Unknown,
    #[error("cannot make {}: {source}", path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error("cannot read or write {}: {source}", path.display())]
    ClusterId { path: PathBuf, source: io::Error },
    #[error("cannot read {}: {source}; is the system running there, and are you its user?", path.display())]
    Key { path: PathBuf, source: io::Error },
}

/// `given`, else `$HEADWATER_DATA_DIR`, else `${XDG_DATA_HOME:-~/.local/share}/headwater`.
pub(crate) fn locate(given: Option<&Path>) -> Result<PathBuf, DataDirError> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let from = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    from("HEADWATER_DATA_DIR")
        .or_else(|| from("XDG_DATA_HOME").map(|base| base.join("headwater")))
        .or_else(|| from("HOME").map(|home| home.join(".local/share/headwater")))
        .ok_or(DataDirError::Unknown)
}

/// Makes the folder with what leads to it; the folder itself is for its owner only (0700).
pub(crate) fn make(path: &Path) -> Result<(), DataDirError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| DataDirError::Make {
            path: path.to_owned(),
            source,
        })
}

fn key_path(dir: &Path) -> PathBuf {
    dir.join("cli.key")
}

/// The key in DIR/cli.key (0600), made at the first start: two random UUIDs, 244 random bits, in base64.
pub(crate) fn make_key(dir: &Path) -> Result<String, DataDirError> {
    let path = key_path(dir);
    let failed = |source| DataDirError::Key {
        path: path.clone(),
        source,
    };
    match std::fs::read_to_string(&path) {
        Ok(key) if key.trim().len() >= 32 => return Ok(key.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let (high, low) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    let key = BASE64_URL_SAFE_NO_PAD.encode([high.into_bytes(), low.into_bytes()].concat());
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    file.write_all(key.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    Ok(key)
}

/// The name of the Kafka cluster in DIR/cluster.id, made at the first start: clients remember it, so
/// it is on disk before it is used.
pub(crate) fn cluster_id(fs: &dyn Fs, dir: &Path) -> Result<String, DataDirError> {
    let path = dir.join("cluster.id");
    let found = read_cluster_id(fs, &path).and_then(|found| match found {
        Some(id) => Ok(id),
        None => {
            let id = uuid::Uuid::new_v4().simple().to_string();
            let fresh = dir.join("cluster.id.new");
            let file = fs.open(&fresh, Open::Create)?;
            write_all_at(&*file, id.as_bytes(), 0)?;
            file.sync()?;
            fs.rename(&fresh, &path)?;
            fs.sync_dir(dir)?;
            Ok(id)
        }
    });
    found.map_err(|source| DataDirError::ClusterId { path, source })
}

/// `None` where there is none, or an empty one.
fn read_cluster_id(fs: &dyn Fs, path: &Path) -> io::Result<Option<String>> {
    let file = match fs.open(path, Open::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = [0; 128];
    let filled = read_full_at(&*file, &mut bytes, 0)?;
    let text = str::from_utf8(bytes.get(..filled).unwrap_or_default())
        .map_err(|_| io::ErrorKind::InvalidData)?;
    let id = text.trim();
    Ok((!id.is_empty()).then(|| id.to_owned()))
}

/// Reads the key of the system that runs in `dir`.
pub(crate) fn read_key(dir: &Path) -> Result<String, DataDirError> {
    let path = key_path(dir);
    match std::fs::read_to_string(&path) {
        Ok(key) => Ok(key.trim().to_owned()),
        Err(source) => Err(DataDirError::Key { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use headwater_commitlog::fs::{PowerCutFs, RealFs, Seed};

    use super::*;

    #[test]
    fn the_cluster_keeps_its_name_over_a_power_cut() {
        let disk = PowerCutFs::default();
        let dir = Path::new("/data");
        disk.create_dir(dir).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let id = cluster_id(&disk, dir).unwrap();
        for seed in 0..50 {
            let left = disk.cut(&mut Seed(seed));
            assert_eq!(cluster_id(&left, dir).unwrap(), id, "seed {seed}");
        }
    }

    #[test]
    fn a_cluster_name_that_cannot_be_synced_or_read_is_not_used() {
        let dir = Path::new("/data");
        for failing in 1..=2 {
            let disk = PowerCutFs::default();
            disk.create_dir(dir).unwrap();
            disk.fail_sync_at(failing, 28);
            cluster_id(&disk, dir).unwrap_err();
            assert_eq!(disk.syncs().len() as u64, failing, "not tried again");
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("cluster.id")).unwrap();
        cluster_id(&RealFs, folder.path()).unwrap_err();
    }

    #[test]
    fn folder_and_key_are_for_their_owner_only() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("a/b");
        make(&dir).unwrap();
        let key = make_key(&dir).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&dir.join("cli.key")), 0o600);
        assert_eq!(make_key(&dir).unwrap(), key, "a second start keeps the key");
        assert_eq!(read_key(&dir).unwrap(), key);
    }
}
