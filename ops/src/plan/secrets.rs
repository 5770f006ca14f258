//! Secrets have no place in a plan: it is kept under version control, and stored in every snapshot.

use std::ops::Range;

use toml::de::{DeArray, DeTable, DeValue};

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

/// The same for what unlocks an interface, as options and assignments write it.
const KEY_WORDS: [&str; 7] =
    ["api-key", "api_key", "apikey", "access-key", "access_key", "secret-key", "secret_key"];

/// Lines of HTTP that carry a secret.
const HEADERS: [&str; 4] = ["authorization:", "x-api-key:", "private-token:", "x-auth-token:"];
/// What may stand in them before it.
const SCHEMES: [&str; 4] = ["bearer", "basic", "token", "apikey"];

const HELD: &str = "this argument holds a password or the like";

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
        let names_key = name.ends_with("_key") && !name.contains("public") || name.ends_with("apikey");
        let text = match value.get_ref() {
            DeValue::String(text) => text.as_ref(),
            _ => "",
        };
        let is_secret = names_secret && !text.is_empty() || names_key && is_literal(text);
        if is_environment && is_secret {
            let message = format!(
                "a secret must not stand in a plan (`{}`): leave it to the environment",
                key.get_ref()
            );
            return Some(Secret { span: key.span(), message });
        }
        if name == "password_command"
            && let DeValue::Array(words) = value.get_ref()
            && let Some(span) = printed(words)
        {
            let message = "a secret must not stand in a plan: this command holds the password; use one that reads it elsewhere, or \
                           password_file"
                .to_owned();
            return Some(Secret { span, message });
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
            let first = values.iter().find_map(|value| in_value(value.get_ref(), value.span(), false));
            first.or_else(|| in_words(values))
        }
        DeValue::Table(table) => in_table(table, is_environment),
        _ => None,
    }
}

/// Where a command begins that prints nothing but what stands in it.
fn printed(words: &DeArray<'_>) -> Option<Range<usize>> {
    let texts: Option<Vec<&str>> = words.iter().map(|word| word.get_ref().as_str()).collect();
    let texts = texts?;
    let is_literal = match texts[..] {
        // A line of a shell may print what it reads elsewhere.
        [shell, "-c", line, ..] if base(shell).ends_with("sh") => {
            !line.contains(['$', '`', '|', '<', ';', '&'])
                && prints(&line.split_whitespace().collect::<Vec<_>>())
        }
        _ => prints(&texts),
    };
    is_literal.then(|| words.first().map(toml::Spanned::span))?
}

fn prints(words: &[&str]) -> bool {
    let Some((program, said)) = words.split_first() else { return false };
    matches!(base(program), "echo" | "printf")
        && said.iter().any(|word| !word.is_empty() && !word.starts_with('-'))
}

/// The name of a program without its folder.
fn base(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// A secret that is the word behind an option, or sticks to one.
fn in_words(values: &DeArray<'_>) -> Option<Secret> {
    let text = |value: &DeValue<'_>| match value {
        DeValue::String(text) => text.to_string(),
        _ => String::new(),
    };
    let words: Vec<_> = values.iter().map(|value| (text(value.get_ref()), value.span())).collect();
    let program = base(&words.first()?.0).to_owned();
    let found = |span: &Range<usize>| Secret {
        span: span.clone(),
        message: format!(
            "a secret must not stand in a plan: {HELD}; use a file, a command or the environment"
        ),
    };
    let behind = words.windows(2).find(|pair| takes_secret(&program, &pair[0].0, &pair[1].0));
    let is_mysql = program.starts_with("mysql") || program.starts_with("mariadb");
    let sticks = |word: &str| word.strip_prefix("-p").is_some_and(is_literal);
    let stuck = words.iter().skip(1).find(|(word, _)| (is_mysql || program == "sshpass") && sticks(word));
    behind.map(|pair| found(&pair[1].1)).or_else(|| stuck.map(|(_, span)| found(span)))
}

/// Whether an option of a program is given a secret with the word behind it.
fn takes_secret(program: &str, option: &str, value: &str) -> bool {
    let long = option.strip_prefix("--").unwrap_or_default().to_ascii_lowercase();
    let names = || WORDS.iter().chain(&KEY_WORDS).any(|word| long.ends_with(word));
    let is_long = !long.starts_with("no-") && names();
    let is_short = match option {
        "-a" | "--pass" => program.starts_with("redis"),
        "-p" => program == "sshpass",
        "-u" | "--user" => {
            program == "curl" && value.split_once(':').is_some_and(|(_, word)| is_literal(word))
        }
        _ => false,
    };
    (is_long || is_short) && is_literal(value)
}

/// Whether a value is there as it stands: neither filled in later, nor a file, nor another option.
fn is_literal(value: &str) -> bool {
    !(value.is_empty() || value.starts_with([' ', '$', '&', '\'', '"', '`', '/', '-', '=']))
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
    let assigned = WORDS.iter().chain(&KEY_WORDS).any(|word| {
        lower.match_indices(&format!("{word}=")).any(|(at, found)| {
            let value = &lower[at + found.len()..];
            // A value that is filled in later is no secret.
            !(value.is_empty() || value.starts_with([' ', '$', '&', '\'', '"']))
        })
    });
    let sent = HEADERS.iter().any(|header| {
        lower.match_indices(header).any(|(at, found)| {
            let value = lower[at + found.len()..].trim_start();
            let (first, rest) = value.split_once(' ').unwrap_or((value, ""));
            is_literal(if SCHEMES.contains(&first) { rest.trim_start() } else { value })
        })
    });
    (assigned || sent).then_some(HELD)
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
            "[[drill]]\nenv = { API_KEY = 'hunter2' }",
            "[[drill]]\nenv = { MAIL_APIKEY = 'hunter2' }",
            "command = ['mysqldump', '--password', 'hunter2']",
            "command = ['mysqldump', '-phunter2', 'shop']",
            "command = ['/usr/bin/redis-cli', '-a', 'hunter2', '--rdb', '-']",
            "command = ['sshpass', '-p', 'hunter2', 'ssh', 'host']",
            "hooks = { before = [['true'], ['tool', '--auth-token', 'hunter2']] }",
            "command = ['tool', '--api-key', 'hunter2']",
            "command = ['tool', '--api-key=hunter2']",
            "command = ['curl', '-u', 'anna:hunter2', 'https://host']",
            "command = ['curl', '-H', 'Authorization: Bearer hunter2', 'https://host']",
            "command = ['sh', '-c', 'curl -H \"X-API-Key: hunter2\" https://host']",
            "[repo.a]\npassword_command = ['echo', 'hunter2']",
            "[repo.a]\npassword_command = ['/usr/bin/printf', '%s', 'hunter2']",
            "[repo.a]\npassword_command = ['sh', '-c', 'echo hunter2']",
            "[repo.a]\npassword_command = ['sh', '-c', 'printf %s \"hunter2\"']",
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
            "password_command = ['sh', '-c', 'echo $(cat /etc/key)']",
            "password_command = ['sh', '-c', 'printf %s \"$KEY\"']",
            "password_command = ['sh', '-c', 'pass show backup | head -n 1']",
            "command = ['echo', 'abc123']",
            "password_file = '/etc/key'",
            "webhook_env = 'URL'",
            "url = 'sftp://anna@host/dir'",
            "command = ['mysqldump', '--defaults-extra-file=/etc/x', '--password=', 'password=$PW']",
            "[[drill]]\nenv = { PGSERVICE = 'drill', PGPASSWORD_FILE = '/x', SSH_KEY = '/etc/key', PUBLIC_KEY = 'x' }",
            "command = ['pg_dump', '--no-password', 'shop']",
            "command = ['tar', '-a', 'x', '-p', '3306']",
            "command = ['mysqldump', '-p', '-uroot']",
            "command = ['tool', '--token', '${token}', '--password', '/run/secret', '--token-file', 'x']",
            "command = ['tool', '--password']",
            "command = ['curl', '-u', 'anna:', 'https://host']",
            "command = ['sh', '-c', 'curl -H \"Authorization: Bearer $TOKEN\" https://host']",
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }
}
