//! Jobs that sum a drive up, across lives of the agent.

use elasticstack_core::wire::internal::{Document, DriveDocument, JobDocument, JobProgress, Sum};
use http::StatusCode;
use sha2::{Digest as _, Sha256};

use super::tests::{MIB, World, drive, drive_id, job};

fn digits(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// That drive 2 be summed up.
fn sum_up(number: u64, length: u64, expected: Option<String>) -> JobDocument {
    let id = format!("5b0e3c52-0000-4000-8000-0000000001{number:02x}");
    let sum = Some(Sum { length, expected });
    JobDocument { job: id.parse().unwrap(), source: drive_id(2), sum, ..job(1, number) }
}

#[test]
fn a_sum_that_was_cut_off_is_made_anew_and_another_than_was_expected_is_told() {
    let world = World::new();
    let content: Vec<u8> =
        (0..5 * MIB / 2).map(|n| u8::try_from(n / 4096 % 251).unwrap()).collect();
    let (whole, odd) = (content.len(), 1_500_001);
    // Dropping a runtime drops every task wherever it stands, as killing the process does.
    let killed = tokio::runtime::Runtime::new().unwrap();
    killed.block_on(async {
        let mut caller = world.agent().await;
        caller.push([Document::Drive(DriveDocument { size: 4 * MIB, ..drive(2, 1) })]).await;
        caller.drive(2, |_| true).await;
        assert_eq!(caller.write(2, 0, content.clone()).await.0, StatusCode::NO_CONTENT);
        world.store.gate.forget_permits(usize::MAX);
        world.store.gate.add_permits(1);
        let length = u64::try_from(whole).unwrap();
        caller.push([Document::Job(sum_up(2, length, Some(digits(&content))))]).await;
        caller.job(|state| matches!(state, JobProgress::Running(_))).await;
    });
    killed.shutdown_background();

    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut caller = world.agent().await;
        assert_eq!(caller.write(2, 0, "x").await.0, StatusCode::CONFLICT, "it is being read");
        world.store.gate.add_permits(1_000);
        caller.job(|state| *state == JobProgress::Summed(digits(&content))).await;

        let (found, other) = (digits(&content[..odd]), digits(b"another"));
        let length = u64::try_from(odd).unwrap();
        caller.push([Document::Job(sum_up(3, length, Some(other.clone())))]).await;
        let refused = |state: &JobProgress| match state {
            JobProgress::Failed(fault) => {
                fault.message.contains(&found) && fault.message.contains(&other)
            }
            _ => false,
        };
        caller.job(refused).await;
        caller.push([Document::Job(sum_up(4, length, None))]).await;
        caller.job(|state| *state == JobProgress::Summed(found.clone())).await;
        caller.push([Document::Job(sum_up(5, 4 * MIB + 1, None))]).await;
        caller.job(|state| matches!(state, JobProgress::Failed(_))).await;
        // What it held is free a moment after its end is told.
        let read = loop {
            let (status, read) = caller.read(2, 0, MIB).await;
            if status != StatusCode::CONFLICT {
                break read;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(read, &content[..1 << 20], "it is only read");
        assert_eq!(caller.write(2, 0, "free again").await.0, StatusCode::NO_CONTENT);
        caller.agent.close().await;
    });
}
