//! Secrets have no place in a plan: it is kept under version control, and stored in every snapshot.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// Something that looks like a secret, at a place in the text. It is never repeated in a message.
pub struct Secret {
    pub span: Range<usize>,
    pub message: String,
}

/// Keys that would hold a secret, with what to write in their place.
const KEYS: [(&str, &str); 12] = [
    ("password", "password_command or password_file"),
    ("passwd", "password_command or password_file"),
    ("passphrase", "password_command or password_file"),
    ("secret", "the name of an environment variable, or a command that prints it"),
    ("token", "the name of an environment variable, or a command that prints it"),
    ("api_key", "the name of an environment variable, or a command that prints it"),
    ("private_key", "the name of an environment variable, or a command that prints it"),
    ("access_key", "the name of an environment variable, or a command that prints it"),
    ("webhook", "webhook_env, the name of an environment variable"),
    ("webhook_url", "webhook_env, the name of an environment variable"),
    ("heartbeat", "heartbeat_env, the name of an environment variable"),
    ("heartbeat_url", "heartbeat_env, the name of an environment variable"),
];

const WORDS: [&str; 5] = ["password", "passwd", "passphrase", "secret", "token"];

/// The first secret in a table or below it.
pub fn find(table: &DeTable<'_>) -> Option<Secret> {
    in_table(table, false)
}

fn in_table(table: &DeTable<'_>, is_environment: bool) -> Option<Secret> {
    table.iter().find_map(|(key, value)| {
        let name = key.get_ref().to_ascii_lowercase();
        if let Some((_, instead)) = KEYS.iter().find(|(secret, _)| name == *secret)
            && !is_environment
        {
            let message = format!("a secret must not stand in a plan (`{name}`): use {instead}");
            return Some(Secret { span: key.span(), message });
        }
        let names_secret = WORDS.iter().any(|word| name.contains(word)) && !name.ends_with("file");
        let is_text = matches!(value.get_ref(), DeValue::String(text) if !text.is_empty());
        if is_environment && names_secret && is_text {
            let message = format!(
                "a secret must not stand in a plan (`{}`): leave it to the environment",
                key.get_ref()
            );
            return Some(Secret { span: key.span(), message });
        }
        in_value(value.get_ref(), value.span(), name == "env")
    })
}

fn in_value(value: &DeValue<'_>, span: Range<usize>, is_environment: bool) -> Option<Secret> {
    match value {
        DeValue::String(text) => in_text(text).map(|what| Secret {
            span,
            message: format!(
                "a secret must not stand in a plan: {what}; use a file, a command or the environment"
            ),
        }),
        DeValue::Array(values) => {
            values.iter().find_map(|value| in_value(value.get_ref(), value.span(), false))
        }
        DeValue::Table(table) => in_table(table, is_environment),
        _ => None,
    }
}

fn in_text(text: &str) -> Option<&'static str> {
    let user_info = text.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', '?', '#', ' ']).next().unwrap_or_default();
        authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
    });
    if user_info {
        return Some("this address holds a password");
    }
    let lower = text.to_ascii_lowercase();
    let assigned = WORDS.iter().any(|word| {
        lower.match_indices(&format!("{word}=")).any(|(at, found)| {
            let value = &lower[at + found.len()..];
            // A value that is filled in later is no secret.
            !(value.is_empty() || value.starts_with([' ', '$', '&', '\'', '"']))
        })
    });
    assigned.then_some("this argument holds a password or the like")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<String> {
        let table = DeTable::parse(text).expect("TOML");
        find(table.get_ref()).map(|secret| secret.message)
    }

    #[test]
    fn secrets_are_seen_where_people_put_them() {
        for text in [
            "[repo.a]\npassword = 'x'",
            "[[notify]]\nwebhook = 'x'",
            "url = 's3:https://key:hunter2@host/bucket'",
            "command = ['mysqldump', '--password=hunter2']",
            "command = ['psql', 'host=db password=hunter2']",
            "[[drill]]\nenv = { PGPASSWORD = 'hunter2' }",
            "Token = 'x'",
        ] {
            let message = found(text).unwrap_or_else(|| panic!("not seen: {text}"));
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn what_only_leads_to_a_secret_is_none() {
        for text in [
            "password_command = ['systemd-creds', 'cat', 'backup-key']",
            "password_file = '/etc/key'",
            "webhook_env = 'URL'",
            "url = 'sftp://anna@host/dir'",
            "command = ['mysqldump', '--defaults-extra-file=/etc/x', '--password=', 'password=$PW']",
            "[[drill]]\nenv = { PGSERVICE = 'drill', PGPASSWORD_FILE = '/x' }",
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }
}
