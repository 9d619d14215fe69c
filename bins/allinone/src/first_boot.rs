//! The proof by a guest with cloud-init, which knows nothing of it beforehand: the server is made
//! with a public key and a script, and the script answers the nonce.
//!
//! It answers with the boot id that it is told over SSH, logged in to itself with the key's other
//! half: so the answer is right only if cloud-init found the script, ran it, installed the public
//! key, and the guest's sshd lets its holder in. The script also insists on the name that the guest
//! was to have and on a root file system that has grown to the drive's size.

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use elasticstack_core::client::{Client, Transport};
use elasticstack_core::units::Bytes;
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::record::Record;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

use crate::smoke::{Steps, Task, Traces, boot_drive, create_server, hardware, second_drive};

/// What the second drive begins with. `tiny` does not know it.
const MAGIC: [u8; 16] = *b"ES-CLOUD-INIT-01";

const HOST_NAME: &str = "first-boot";

/// What the boot drive has more than the image: the root file system is to take it.
const ROOM: Bytes = Bytes::from_gib(1);

const SCRIPT: &str = include_str!("first_boot.py");

/// Makes a server that boots the standard drive `standard` and whose cloud-init is given the task.
///
/// # Errors
/// What the API says.
pub(crate) async fn give<T: Transport>(
    client: &Client<T>,
    standard: &str,
    traces: &mut Traces,
    steps: &mut Steps,
) -> anyhow::Result<Task> {
    let all = client.many(Call::DrivesInfoStandard).await.context("listing images")?;
    let image = all.iter().find(|drive| drive.value("drive") == Some(standard));
    let image = image.with_context(|| format!("there is no standard drive {standard}"))?;
    let boot = boot_drive(client, image, ROOM, traces, steps).await?;
    let (second, block) = second_drive(client, MAGIC, traces, steps).await?;
    let record = told(&hardware(&boot), image, &Key::draw()?).with("block:0", &second);
    let server = create_server(client, &record, traces, steps).await?;
    Ok(Task { server, second, block })
}

/// A server that is told its name, whom to let in and what to do.
fn told(hardware: &Record, image: &Record, key: &Key) -> Record {
    let script = SCRIPT
        .replace("{MAGIC}", &String::from_utf8_lossy(&MAGIC))
        .replace("{HOST_NAME}", HOST_NAME)
        .replace("{IMAGE_SIZE}", image.value("rawsize").unwrap_or_default())
        .replace("{PRIVATE_KEY}", &key.private);
    hardware
        .clone()
        .with("ssh:0:key", &key.public)
        .with("cloud:hostname", HOST_NAME)
        .with("cloud:userdata", script)
}

/// A fresh pair of keys, of one guest and one proof.
struct Key {
    /// PKCS 8 in PEM.
    private: String,
    /// One line, as OpenSSH writes it.
    public: String,
}

impl Key {
    fn draw() -> anyhow::Result<Self> {
        const KIND: &str = "ecdsa-sha2-nistp256";
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let failed = |what: &str| anyhow!("drawing a pair of keys: {what}");
        let private =
            EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|e| failed(&e.to_string()))?;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, private.as_ref(), &random)
            .map_err(|e| failed(&e.to_string()))?;
        let mut blob = Vec::new();
        for part in [KIND.as_bytes(), b"nistp256", pair.public_key().as_ref()] {
            blob.extend_from_slice(&u32::try_from(part.len())?.to_be_bytes());
            blob.extend_from_slice(part);
        }
        let pem = STANDARD.encode(private.as_ref());
        let lines: Vec<_> = pem.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        Ok(Self {
            private: format!(
                "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
                lines.join("\n")
            ),
            public: format!("{KIND} {} smoke", STANDARD.encode(blob)),
        })
    }
}

#[cfg(test)]
mod tests {
    use elasticstack_core::wire::keys::{Moment, Object, check};

    use super::*;

    #[test]
    fn the_server_is_one_that_the_api_takes_and_its_script_is_filled_in() {
        let image = Record::new().with("rawsize", 2_147_483_648_u64);
        let (one, other) = (Key::draw().unwrap(), Key::draw().unwrap());
        assert_ne!(one.public, other.public);
        let record = told(&hardware("5b0e3c52-0000-4000-8000-00000000d001"), &image, &one);
        check(Object::Server, Moment::Create, &record).unwrap();
        let script = record.value("cloud:userdata").unwrap();
        for word in ["ES-CLOUD-INIT-01", HOST_NAME, "2147483648", &one.private] {
            assert!(script.contains(word), "{word}");
        }
        let placeholder = ["MAGIC", "HOST_NAME", "IMAGE_SIZE", "PRIVATE_KEY"]
            .into_iter()
            .find(|name| script.contains(&format!("{{{name}}}")));
        assert_eq!(placeholder, None);
    }
}
