//! The document of the API (OpenAPI 3.1), made from the table.

use std::collections::BTreeMap;

use axum::{http::Method, response::Response};
use relay_program::api::ProblemDetails;
use utoipa::{
    PartialSchema as _, ToSchema as _,
    openapi::{
        ComponentsBuilder, Content as MediaType, HttpMethod, InfoBuilder, OpenApi, OpenApiBuilder, PathItem,
        PathsBuilder, RefOr, Required, Response as DocResponse, Schema,
        path::{OperationBuilder, ParameterBuilder, ParameterIn},
        request_body::RequestBodyBuilder,
        schema::{ObjectBuilder, Type},
        security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};

use super::{
    ask,
    table::{DocContent, Needs, Operation},
};

/// How whoever asks is known; a session of the page shows its key in the same way, or its cookie.
const TOKEN: &str = "token";

pub(super) fn operations() -> Vec<Operation> {
    vec![Operation::get("/openapi.json", Needs::Nobody, show).says("This document").answers_as(200, "application/json")]
}

async fn show() -> Response {
    ask::ok(&document(&super::operations()))
}

/// The document of these operations; paths stand behind the base.
pub(super) fn document(operations: &[Operation]) -> OpenApi {
    let mut schemas = BTreeMap::from([(ProblemDetails::name().into_owned(), ProblemDetails::schema())]);
    let mut paths: BTreeMap<&str, PathItem> = BTreeMap::new();
    for operation in operations {
        let contents = operation.takes.iter().chain(operation.answers.iter().map(|(_, content)| content));
        for content in contents {
            if let DocContent::Json { schemas: more, .. } = content {
                schemas.extend(more.iter().cloned());
            }
        }
        let item = PathItem::new(method(&operation.method), described(operation));
        match paths.get_mut(operation.path) {
            Some(there) => there.merge_operations(item),
            None => drop(paths.insert(operation.path, item)),
        }
    }
    let info = InfoBuilder::new().title("Relay").version("1").description(Some(
        "Behind /api/v1 on the admin listener and the inspector's host, and behind /_relay/v1 on the public listener.",
    ));
    let all = paths.into_iter().fold(PathsBuilder::new(), |all, (path, item)| all.path(path, item));
    let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = ComponentsBuilder::new().schemas_from_iter(schemas).security_scheme(TOKEN, token).build();
    OpenApiBuilder::new().info(info.build()).paths(all.build()).components(Some(components)).build()
}

fn described(operation: &Operation) -> utoipa::openapi::path::Operation {
    let mut described = OperationBuilder::new()
        .summary(Some(operation.summary))
        .operation_id(Some(id(operation)))
        .description(match operation.needs {
            Needs::Nobody => Some("Needs no token.".to_owned()),
            Needs::Anybody => None,
            Needs::Right(right) => Some(format!("Needs the right `{}`.", right.name())),
        });
    if operation.needs != Needs::Nobody {
        described = described.security(SecurityRequirement::new(TOKEN, [""; 0]));
    }
    for name in operation.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
        let kind = if name == "number" { Type::Integer } else { Type::String };
        let text = RefOr::T(Schema::Object(ObjectBuilder::new().schema_type(kind).build()));
        let path = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path).required(Required::True);
        described = described.parameter(path.schema(Some(text)).build());
    }
    for parameter in &operation.query {
        described = described.parameter(parameter.clone());
    }
    if let Some(DocContent::Json { schema, .. }) = &operation.takes {
        let body =
            RequestBodyBuilder::new().content("application/json", MediaType::new(Some(DocContent::reference(schema))));
        described = described.request_body(Some(body.build()));
    }
    let mut responses: BTreeMap<u16, DocResponse> = BTreeMap::new();
    for (status, content) in &operation.answers {
        let response = responses.entry(*status).or_insert_with(|| DocResponse::new(""));
        match content {
            DocContent::Json { schema, .. } => {
                response.content.insert("application/json".to_owned(), media(Some(schema)));
            }
            DocContent::Other(kind) => drop(response.content.insert((*kind).to_owned(), media(None))),
        }
    }
    for (status, response) in responses {
        described = described.response(status.to_string(), response);
    }
    let mut problem = DocResponse::new("It cannot be done; `code` says why");
    problem.content.insert("application/problem+json".to_owned(), media(Some("ProblemDetails")));
    described.response("default", problem).build()
}

fn media(schema: Option<&str>) -> RefOr<MediaType> {
    RefOr::T(MediaType::new(schema.map(DocContent::reference)))
}

/// Such as `post_events_id_replay`.
fn id(operation: &Operation) -> String {
    let words = operation.path.split(['/', '{', '}', '.']).filter(|word| !word.is_empty());
    let words: Vec<_> = std::iter::once(operation.method.as_str()).chain(words).collect();
    words.join("_").to_lowercase()
}

fn method(method: &Method) -> HttpMethod {
    match method.as_str() {
        "POST" => HttpMethod::Post,
        "PUT" => HttpMethod::Put,
        "DELETE" => HttpMethod::Delete,
        _ => HttpMethod::Get,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use serde_json::Value;

    use super::*;

    /// Where every path, parameter and key of a document stands.
    fn keys(value: &Value, place: &str, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    let place = format!("{place}/{name}");
                    keys(member, &place, found);
                    found.insert(place);
                }
            }
            // Of parameters the names count, not the order.
            Value::Array(items) => {
                for item in items {
                    let name = item["name"].as_str().unwrap_or_default();
                    keys(item, &format!("{place}/{name}"), found);
                }
            }
            _ => {}
        }
    }

    #[test]
    fn the_document_is_checked_in_and_no_key_of_it_goes() {
        let made = serde_json::to_value(document(&super::super::operations())).expect("JSON");
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").join("docs/openapi.json");
        let there: Value = serde_json::from_slice(&fs::read(&file).unwrap_or_default()).unwrap_or_default();
        let (mut now, mut before) = (BTreeSet::new(), BTreeSet::new());
        keys(&made, "", &mut now);
        for part in ["paths", "components"] {
            keys(&there[part], &format!("/{part}"), &mut before);
        }
        let gone: Vec<_> = before.difference(&now).filter(|key| !key.ends_with("/description")).collect();
        assert!(gone.is_empty(), "keys are only ever added: {gone:#?}");
        if std::env::var_os("RELAY_WRITE_DOCS").is_some() {
            fs::write(&file, format!("{made:#}\n")).expect("written");
        } else {
            assert!(made == there, "docs/openapi.json is not what is served; RELAY_WRITE_DOCS=1 writes it anew");
        }
    }

    #[test]
    fn every_operation_says_what_it_does_and_answers() {
        let operations = super::super::operations();
        let ids: BTreeSet<_> = operations.iter().map(id).collect();
        assert!(operations.len() > 20 && ids.len() == operations.len());
        for one in &operations {
            assert!(!one.summary.is_empty() && !one.answers.is_empty(), "{} {}", one.method, one.path);
        }
    }
}
