//! Copies of a database by the means of its own kind.

use std::path::Path;

use elasticstack_api::backup;

use crate::database::{TestDatabase, client};

/// Another database of the same kind, on the same cluster, with nothing in it.
pub(crate) fn empty_beside(database: &TestDatabase) -> TestDatabase {
    match database {
        TestDatabase::Postgres { socket, .. } => TestDatabase::on(socket.clone(), None),
        TestDatabase::Sqlite(_) => TestDatabase::Sqlite(tempfile::tempdir().unwrap()),
    }
}

/// Copies all of a database that is at work to `file`.
pub(crate) async fn back_up(database: &TestDatabase, file: &Path) {
    match database {
        TestDatabase::Postgres { socket, name, .. } => {
            let (socket, name) = (socket.clone(), name.clone());
            let file = file.to_str().unwrap().to_owned();
            let dump = move || {
                client("pg_dump", &socket, &["--format=custom", "--file", &file, &name]);
            };
            // Whoever is at work meanwhile goes on.
            tokio::task::spawn_blocking(dump).await.unwrap();
        }
        TestDatabase::Sqlite(_) => backup::backup(&database.url(), file).await.unwrap(),
    }
}

/// Has an empty database hold what `file` does; what is left for a restore to read, if anything.
pub(crate) fn bring_back<'a>(database: &TestDatabase, file: &'a Path) -> Option<&'a Path> {
    match database {
        TestDatabase::Postgres { socket, name, .. } => {
            client("pg_restore", socket, &["--dbname", name, file.to_str().unwrap()]);
            None
        }
        TestDatabase::Sqlite(_) => Some(file),
    }
}
