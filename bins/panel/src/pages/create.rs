//! Creating a server from an image: the form, and what it is turned into.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use elasticstack_core::amount;
use elasticstack_core::error::{Error, ErrorKind};
use elasticstack_core::id::DriveId;
use elasticstack_core::name::Name;
use elasticstack_core::units::Bytes;
use elasticstack_core::wire::keys::{self, Object, Takes};
use elasticstack_core::wire::record::Record;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tera::Context;

use crate::app::App;
use crate::builds::Wish;
use crate::fault::{self, Fault};
use crate::pages::drives::size;
use crate::pages::servers::decimal;
use crate::request::{LoggedIn, Sent};
use crate::sessions::Token;

/// The form as it is typed: GHz, GiB.
#[derive(Deserialize, Serialize)]
pub(crate) struct Typed {
    name: String,
    image: String,
    cpu: String,
    mem: String,
    disk: String,
    /// Which showing of the form this is.
    form: String,
}

impl Default for Typed {
    fn default() -> Self {
        let [name, image, cpu, mem, disk, form] = ["", "", "2", "1", "10", ""].map(str::to_owned);
        Self { name, image, cpu, mem, disk, form }
    }
}

pub(crate) async fn show(
    State(app): State<Arc<App>>,
    session: LoggedIn,
) -> Result<Response, Fault> {
    let images = session.account.images().await?;
    page(&app, &session, &images, &Typed::default(), None)
}

pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Sent { session, fields: typed }: Sent<Typed>,
) -> Result<Response, Fault> {
    let images = session.account.images().await?;
    let refused = |why: &str| page(&app, &session, &images, &typed, Some(why));
    let wish = match wish(&typed, &images) {
        Ok(wish) => wish,
        Err(why) => return refused(&why),
    };
    match app.builds.order(session.shared(), typed.form.clone(), wish).await {
        Ok(drive) => Ok(Redirect::to(&format!("/drives/{drive}/build")).into_response()),
        Err(error) => match Fault::from(error) {
            Fault::Refused { sentence, .. } => refused(&sentence),
            other => Err(other),
        },
    }
}

/// What the form asks for, or the sentence that says what is wrong with it.
fn wish(typed: &Typed, images: &[Record]) -> Result<Wish, String> {
    let name = typed.name.trim().parse::<Name>().map_err(|error| sentence(error.to_string()))?;
    let image = bootable(images)
        .find(|image| image.value("drive") == Some(typed.image.as_str()))
        .ok_or("Choose an image.")?;
    let id: DriveId = typed.image.parse().map_err(|_| "Choose an image.")?;
    let cpu = amount::cpu(&format!("{}GHz", typed.cpu)).map_err(|_| outside("cpu"))?;
    let mem = amount::memory(&format!("{}GiB", typed.mem)).map_err(|_| outside("mem"))?;
    for (key, value) in [("cpu", cpu.0), ("mem", mem.0)] {
        if !range(key).is_none_or(|(low, high)| (low..=high).contains(&value)) {
            return Err(outside(key));
        }
    }
    let disk = amount::size(&format!("{}GiB", typed.disk))
        .map_err(|_| "The disk takes a number of GiB, such as 10.".to_owned())?;
    if disk < contents(image) {
        let needs = amount::shown(contents(image));
        return Err(format!("This image needs a disk of at least {needs}."));
    }
    Ok(Wish { name, image: id, size: disk, cpu, mem })
}

/// The images that a drive is made from, not those that are put in as a CD.
fn bootable(images: &[Record]) -> impl Iterator<Item = &Record> {
    images.iter().filter(|image| image.value("media") != Some("cdrom"))
}

/// The bytes that an image fills.
fn contents(image: &Record) -> Bytes {
    let bytes = image.value("rawsize").or(image.value("size")).and_then(|size| size.parse().ok());
    bytes.and_then(|bytes: u64| Bytes::try_from(bytes).ok()).unwrap_or(Bytes::ZERO)
}

/// The least and the most that a server's key takes, as the API's own table says.
fn range(key: &str) -> Option<(u32, u32)> {
    match keys::find(Object::Server, key)?.takes {
        Takes::Range(low, high) => Some((low, high)),
        _ => None,
    }
}

/// [`range`] in the unit of the form, as text.
fn typed_range(key: &str) -> Option<[String; 2]> {
    let (low, high) = range(key)?;
    let unit = if key == "cpu" { 1_000 } else { 1_024 };
    Some([low, high].map(|bound| decimal(u64::from(bound) * 1_000 / unit)))
}

fn outside(key: &str) -> String {
    let (what, unit) = if key == "cpu" { ("Processor", "GHz") } else { ("Memory", "GiB") };
    match typed_range(key) {
        Some([low, high]) => format!("{what} takes {low} to {high} {unit}."),
        None => format!("{what} takes a number of {unit}."),
    }
}

fn sentence(text: String) -> String {
    fault::sentence(&Error::new(ErrorKind::InvalidValue, text))
}

#[derive(Serialize)]
struct Choice<'a> {
    id: &'a str,
    name: &'a str,
    size: String,
}

fn page(
    app: &App,
    session: &LoggedIn,
    images: &[Record],
    typed: &Typed,
    error: Option<&str>,
) -> Result<Response, Fault> {
    let choices: Vec<_> = bootable(images)
        .map(|image| Choice {
            id: image.value("drive").unwrap_or_default(),
            name: image.value("name").unwrap_or_default(),
            size: size(image, if image.value("rawsize").is_some() { "rawsize" } else { "size" }),
        })
        .collect();
    let mut context = Context::new();
    context.insert("images", &choices);
    context.insert("typed", typed);
    context.insert("form", Token::random()?.expose());
    context.insert("cpu_range", &typed_range("cpu"));
    context.insert("mem_range", &typed_range("mem"));
    context.insert("error", &error);
    let status = if error.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    Ok((status, app.view.page("create.html", session, context)?).into_response())
}

#[cfg(test)]
mod tests {
    use elasticstack_core::units::{MebiBytes, MegaHertz};

    use super::*;

    const IMAGE: &str = "5b0e3c52-0000-4000-8000-00000000a001";

    fn images() -> Vec<Record> {
        let image = Record::new().with("drive", IMAGE).with("media", "disk");
        let cd = "5b0e3c52-0000-4000-8000-00000000a002";
        vec![
            image.with("size", 5).with("rawsize", 2_u64 << 30),
            Record::new().with("drive", cd).with("media", "cdrom"),
        ]
    }

    fn typed(change: impl FnOnce(&mut Typed)) -> Typed {
        let mut typed = Typed { name: " web ".into(), image: IMAGE.into(), ..Typed::default() };
        change(&mut typed);
        typed
    }

    #[test]
    fn a_form_in_ghz_and_gib_is_a_wish_in_mhz_and_mib() {
        let form = typed(|form| (form.cpu, form.mem) = ("1.5".into(), "0.5".into()));
        let wish = wish(&form, &images()).unwrap();
        assert_eq!(wish.name.as_str(), "web");
        assert_eq!((wish.cpu, wish.mem), (MegaHertz(1500), MebiBytes(512)));
        assert_eq!(wish.size, Bytes::from_gib(10));
    }

    #[test]
    fn a_wrong_field_is_named_with_what_it_takes() {
        let cd = "5b0e3c52-0000-4000-8000-00000000a002";
        let cases = [
            (typed(|form| form.name = " ".into()), "A name has at least one"),
            (typed(|form| form.image = "x".into()), "Choose an image."),
            (typed(|form| form.image = cd.into()), "Choose an image."),
            (typed(|form| form.cpu = "0.1".into()), "Processor takes 0.5 to 100 GHz."),
            (typed(|form| form.cpu = "2GHz".into()), "Processor takes 0.5 to 100 GHz."),
            (typed(|form| form.mem = "-1".into()), "Memory takes 0.125 to 1024 GiB."),
            (typed(|form| form.disk = "1".into()), "This image needs a disk of at least 2 GiB."),
        ];
        for (form, wanted) in cases {
            let why = wish(&form, &images()).unwrap_err();
            assert!(why.starts_with(wanted), "{why}");
        }
    }
}
