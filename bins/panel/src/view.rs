//! Templates filled into pages. Owns the list of templates and what every page gets: the brand,
//! and of a session its account, form token and notice. Everything is escaped.

use axum::response::Html;
use tera::{Context, Tera};

use crate::brand::{Brand, InvalidBrand};
use crate::fault::Fault;
use crate::sessions::Session;

macro_rules! templates {
    ($($name:literal)*) => { [$(($name, include_str!(concat!("../templates/", $name)))),*] };
}

const TEMPLATES: [(&str, &str); 10] = templates! {
    "base.html" "build.html" "confirm.html" "create.html" "drives.html" "fault.html" "login.html"
    "serial.html" "server.html" "servers.html"
};

/// The panel's look.
#[derive(Debug)]
pub(crate) struct View {
    tera: Tera,
    brand: Brand,
}

impl View {
    pub(crate) fn new(brand: Brand) -> Result<Self, InvalidBrand> {
        let mut tera = Tera::default();
        let own = TEMPLATES.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        // The brand's come last and replace ours of the same name.
        tera.add_raw_templates(own.chain(brand.templates.clone()))
            .map_err(|source| InvalidBrand::Template { source: Box::new(source) })?;
        Ok(Self { tera, brand })
    }

    pub(crate) fn brand(&self) -> &Brand {
        &self.brand
    }

    /// A page for who is logged in.
    pub(crate) fn page(
        &self,
        template: &str,
        session: &Session,
        mut context: Context,
    ) -> Result<Html<String>, Fault> {
        context.insert("account", session.account.name());
        context.insert("token", session.form_token.expose());
        context.insert("notice", &session.take_notice());
        self.fill(template, context)
    }

    /// A page for anybody.
    pub(crate) fn public_page(
        &self,
        template: &str,
        mut context: Context,
    ) -> Result<Html<String>, Fault> {
        context.insert("account", &None::<&str>);
        context.insert("notice", &None::<&str>);
        self.fill(template, context)
    }

    /// The page that stands for a fault, or one sentence if even that fails.
    pub(crate) fn fault(&self, fault: &Fault) -> Html<String> {
        let mut context = Context::new();
        context.insert("title", fault.title());
        context.insert("sentence", &fault.sentence());
        self.public_page("fault.html", context)
            .unwrap_or_else(|_| Html("Something of ours failed. Try again later.".to_owned()))
    }

    fn fill(&self, template: &str, mut context: Context) -> Result<Html<String>, Fault> {
        context.insert("brand", &self.brand.name);
        context.insert("support", &self.brand.support);
        self.tera.render(template, &context).map(Html).map_err(|error| Fault::template(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brands_template_replaces_ours_and_a_broken_one_is_refused() {
        let mut brand = Brand::embedded();
        brand.templates = vec![("fault.html".to_owned(), "<p>{{ brand }}: {{ sentence }}".into())];
        let page = View::new(brand.clone()).unwrap().fault(&Fault::Missing);
        assert!(page.0.starts_with("<p>ElasticStack: It may have been destroyed"), "{}", page.0);
        brand.templates = vec![("fault.html".to_owned(), "{% if %}".into())];
        assert!(matches!(View::new(brand), Err(InvalidBrand::Template { .. })));
    }
}
