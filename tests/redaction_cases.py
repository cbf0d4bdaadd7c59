"""Texts with a made-up secret each, and texts that only look as if they held one.

Every secret is put together when this is imported, from a prefix and characters of a seeded generator: none of them was
ever valid. Innocent texts that a scanner takes for secrets are put together, too, so that none finds any in this file.
"""

# ruff: noqa: E501  one case a line

from __future__ import annotations

import base64
import json
import random
import string
from dataclasses import dataclass

LETTERS = string.ascii_letters
ALNUM = string.ascii_letters + string.digits
UPPER = string.ascii_uppercase + string.digits
LOWER = string.ascii_lowercase + string.digits
BASE32 = string.ascii_uppercase + "234567"
HEX = "0123456789abcdef"
BASE64 = ALNUM + "+/"
URLSAFE = ALNUM + "-_"
_made = random.Random(8)


def some(alphabet: str, length: int) -> str:
    """Return `length` characters, letters and digits among them where the alphabet has both."""
    while True:
        text = "".join(_made.choice(alphabet) for _ in range(length))
        if text[0].isalnum() and text[-1].isalnum() and any(char.isdigit() for char in text):
            return text


def encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def card(start: str, length: int) -> str:
    """Return a card number that begins so and whose last digit is its check."""
    digits = start + "".join(_made.choice(string.digits) for _ in range(length - len(start) - 1))
    total = 0
    for place, char in enumerate(reversed(digits)):
        value = int(char) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return digits + str(-total % 10)


def grouped(number: str, sizes: tuple[int, ...], sign: str) -> str:
    parts, at = [], 0
    for size in sizes:
        parts.append(number[at : at + size])
        at += size
    return sign.join(parts)


def pem(kind: str, lines: int = 6, end: str = "\n") -> str:
    body = end.join(some(BASE64, 64) for _ in range(lines))
    return f"-----BEGIN {kind}-----{end}{body}{end}-----END {kind}-----"


@dataclass(frozen=True, slots=True)
class Secret:
    """A text with a secret in it.

    Attributes:
        kind: Of the mark that has to stand in its place.
        text: With `{}` where the secret stands.
        secret: No part of it may be left.
        known_miss: Why it is not found, where that is known.
    """

    kind: str
    text: str
    secret: str
    known_miss: str = ""

    @property
    def whole(self) -> str:
        return self.text.replace("{}", self.secret)


def _providers() -> list[Secret]:
    """Return tokens whose form says whose they are."""
    rows = [
        ("aws access key", "aws_access_key_id = {}", "AKIA" + some(BASE32, 16)),
        ("aws access key", "The role gave {} for an hour.", "ASIA" + some(BASE32, 16)),
        ("aws bedrock key", "AWS_BEARER_TOKEN_BEDROCK={}", "ABSK" + some(BASE64, 128)),
        ("google api key", "https://maps.googleapis.com/maps/api/js?key={}&v=3", "AIza" + some(URLSAFE, 35)),
        ("google oauth token", "curl -H 'Authorization: Bearer {}' …", "ya29." + some(URLSAFE, 80)),
        ("google client secret", '"client_secret":"{}"', "GOCSPX-" + some(URLSAFE, 28)),
        ("google refresh token", '"refresh_token": "{}"', "1//0" + some(URLSAFE, 60)),
        ("azure client secret", "az login --service-principal -p {} -t contoso", some(ALNUM, 3) + "8Q~" + some(ALNUM, 34)),
        (
            "azure storage key",
            "DefaultEndpointsProtocol=https;AccountName=x;AccountKey={};EndpointSuffix=core.windows.net",
            some(BASE64, 86) + "==",
        ),
        ("signature of a link", "https://x.blob.core.windows.net/c/f?sv=2022-11-02&sr=b&sig={}", some(ALNUM, 43) + "%3D"),
        ("signature of a link", "https://b.s3.amazonaws.com/f?X-Amz-Date=20260101T0000Z&X-Amz-Signature={}", some(HEX, 64)),
        ("digitalocean token", "doctl auth init -t {}", "dop_v1_" + some(HEX, 64)),
        ("databricks token", "host token {}", "dapi" + some(HEX, 32)),
        ("fly token", "FLY_API_TOKEN={}", "fo1_" + some(URLSAFE, 43)),
        ("netlify token", "netlify deploy --auth {}", "nfp_" + some(ALNUM, 36)),
        ("supabase key", "supabase login --token {}", "sbp_" + some(HEX, 40)),
        ("planetscale token", "pscale connect --service-token {}", "pscale_tkn_" + some(URLSAFE, 43)),
        ("vault token", "export VAULT_TOKEN={}", "hvs." + some(URLSAFE, 90)),
        ("terraform token", 'credentials "app.terraform.io" { token = "{}" }', some(ALNUM, 14) + ".atlasv1." + some(URLSAFE, 67)),
        ("pulumi token", "pulumi login with {}", "pul-" + some(HEX, 40)),
        ("doppler token", "doppler run --token {}", "dp.st.dev." + some(ALNUM, 43)),
        ("github token", "git clone https://{}@github.com/acme/site", "ghp_" + some(ALNUM, 36)),
        ("github token", "GITHUB_TOKEN: {}", "ghs_" + some(ALNUM, 36)),
        ("github token", "gh auth login --with-token <<< {}", "github_pat_" + some(ALNUM, 22) + "_" + some(ALNUM, 59)),
        ("gitlab token", "PRIVATE-TOKEN: {}", "glpat-" + some(URLSAFE, 20)),
        ("gitlab token", "gitlab-runner register --token {}", "glrt-" + some(URLSAFE, 20)),
        ("atlassian token", "jira login, then {}", "ATATT3" + some(URLSAFE, 180)),
        ("npm token", "//registry.npmjs.org/:_authToken={}", "npm_" + some(ALNUM, 36)),
        ("pypi token", "twine upload -u __token__ -p {} dist/*", "pypi-AgE" + some(URLSAFE, 150)),
        ("rubygems token", "GEM_HOST_API_KEY={}", "rubygems_" + some(HEX, 48)),
        ("crates.io token", "cargo login {}", "cio" + some(ALNUM, 32)),
        ("docker token", "docker login -u acme --password-stdin <<< {}", "dckr_pat_" + some(URLSAFE, 27)),
        ("anthropic key", "ANTHROPIC_API_KEY={}", "sk-ant-api03-" + some(URLSAFE, 93) + "AA"),
        ("openai key", 'client = OpenAI(api_key="{}")', "sk-proj-" + some(URLSAFE, 120)),
        ("openai key", "It printed {} and failed with 401.", "sk-" + some(ALNUM, 48)),
        ("openrouter key", "OPENROUTER={}", "sk-or-v1-" + some(HEX, 64)),
        ("hugging face token", "huggingface-cli login --token {}", "hf_" + some(LETTERS + "12", 34)),
        ("replicate token", "REPLICATE={}", "r8_" + some(ALNUM, 37)),
        ("groq key", "groq said {} is over its limit", "gsk_" + some(ALNUM, 52)),
        ("langsmith key", "LANGSMITH: {}", "lsv2_pt_" + some(HEX, 32) + "_" + some(HEX, 10)),
        ("slack token", "slack chat send --as {}", "xoxb-" + some(string.digits, 12) + "-" + some(string.digits, 12) + "-" + some(ALNUM, 24)),
        ("slack token", "SLACK_APP={}", "xapp-1-A" + some(UPPER, 10) + "-" + some(string.digits, 13) + "-" + some(HEX, 64)),
        ("slack webhook", "curl -d '{\"text\":\"up\"}' https://hooks.slack.com/services/{}", "T" + some(UPPER, 10) + "/B" + some(UPPER, 10) + "/" + some(ALNUM, 24)),
        ("discord webhook", "https://discord.com/api/webhooks/1187345098713450987/{}", some(URLSAFE, 68)),
        ("discord token", "bot.run('{}')", "M" + some(ALNUM, 25) + "." + some(ALNUM, 6) + "." + some(URLSAFE, 38)),
        ("telegram token", "https://api.telegram.org/bot{}/getMe", some(string.digits, 10) + ":AA" + some(URLSAFE, 33)),
        ("stripe key", "stripe.api_key = '{}'", "sk_live_" + some(ALNUM, 24)),
        ("stripe key", "STRIPE={} in the test account", "rk_test_" + some(ALNUM, 24)),
        ("webhook secret", "STRIPE_HOOK: {}", "whsec_" + some(ALNUM, 32)),
        ("square token", "square {}", "sq0atp-" + some(URLSAFE, 22)),
        ("shopify token", "X-Shopify-Access-Token: {}", "shpat_" + some(HEX, 32)),
        ("twilio key", "twilio login with {}", "SK" + some(HEX, 32)),
        ("sendgrid key", "sendgrid: {}", "SG." + some(URLSAFE, 22) + "." + some(URLSAFE, 43)),
        ("mailgun key", "curl -s --user 'api:{}' https://api.mailgun.net/v3/x", "key-" + some(HEX, 32)),
        ("mailchimp key", "mailchimp answers to {}", some(HEX, 32) + "-us21"),
        ("notion token", "notion: {}", "ntn_" + some(ALNUM, 46)),
        ("linear key", "linear issue list with {}", "lin_api_" + some(ALNUM, 40)),
        ("figma token", "X-Figma: {}", "figd_" + some(URLSAFE, 43)),
        ("airtable token", "airtable {}", "pat" + some(ALNUM, 14) + "." + some(HEX, 64)),
        ("postman key", "newman run --with {}", "PMAK-" + some(HEX, 24) + "-" + some(HEX, 34)),
        ("new relic key", "newrelic profile add {}", "NRAK-" + some(UPPER, 27)),
        ("sentry token", "sentry-cli login {}", "sntrys_" + some(BASE64, 120)),
        ("grafana token", "grafana {}", "glsa_" + some(ALNUM, 32) + "_" + some(HEX, 8)),
        ("age secret key", "# age key\n{}\n", "AGE-SECRET-KEY-1" + some(BASE32, 58)),
        ("json web token", "The cookie was {}.", f"{encoded({'alg': 'HS256', 'typ': 'JWT'})}.{encoded({'sub': '42', 'n': 7})}.{some(URLSAFE, 43)}"),
        ("json web token", "id_token={}&state=1", f"{encoded({'alg': 'RS256', 'kid': 'a'})}.{encoded({'iss': 'https://id.acme.test'})}.{some(URLSAFE, 342)}"),
    ]  # fmt: skip
    return [Secret(*row) for row in rows]


def _named() -> list[Secret]:
    """Return passwords and keys that are known by the name before them."""
    rows = [
        ("password", "my password is {}", "securePass" + some(string.digits, 3)),
        ("password", "Log in as tech_guru, password {} please.", "Wint3r" + some(string.digits, 2) + "Sun"),
        ("password", "The password was: {}.", "k9#" + some(ALNUM, 6)),
        ("password", '{"username": "ann", "password": "{}"}', "hunter" + some(string.digits, 1)),
        ("password", '{\\"login\\": \\"ann\\", \\"password\\": \\"{}\\"}', "hunter" + some(string.digits, 2)),
        ("password", "password: {}\nhost: db.internal\n", "s3cr3t!" + some(ALNUM, 5)),
        ("password", "DB_PASSWORD={}", "correcthorse" + "battery"),
        ("password", "export PGPASSWORD='{}'", "lighthouse" + "keeper"),
        ("password", "mysql --user root --password {} shop", "Gr33n" + some(ALNUM, 5)),
        ("password", "db.connect(user='sa', password='{}')", "tulips" + "inmay"),
        ("password", 'const password: string = "{}";', some(ALNUM, 12)),
        ("password", "props.setProperty(\"password\", \"{}\");", "green" + some(string.digits, 3)),
        ("password", "Server=db;Database=x;User Id=sa;Password={};Encrypt=yes", "Yellow" + some(string.digits, 4)),
        ("password", "<password>{}</password>", "mountain" + some(string.digits, 2)),
        ("password", "machine api.acme.test login deploy password {}", "over" + some(ALNUM, 8)),
        ("password", "curl -u " + "deploy:{} https://ci.acme.test/job", "blue" + some(ALNUM, 6)),
        ("password", "curl --user 'ann:{}' ftp://files.acme.test", "0range" + some(ALNUM, 4)),
        ("password", "sshpass -p '{}' ssh ann@host", "river" + some(ALNUM, 5)),
        ("password", "mysql -u root -p{} -e 'show tables'", "Str0ng" + some(ALNUM, 4)),
        ("password", "https://shop.acme.test/login?user=ann&password={}&next=/", "quiet" + some(string.digits, 3)),
        ("password", "postgres://app:{}@db.acme.test:5432/shop", some(ALNUM, 16)),
        ("password", "mongodb+srv://ann:{}@cluster0.mongodb.net/test?retryWrites=true", some(ALNUM, 14)),
        ("password", "redis://:{}@cache:6379/0", some(ALNUM, 20)),
        ("password", "amqp://guest:{}@rabbit:5672//", some(LOWER, 10)),
        ("password", "git remote set-url origin https://ann:{}@git.acme.test/site.git", some(ALNUM, 18)),
        ("password", "proxy = http://ann:{}@proxy.acme.test:3128", "p%40ss" + some(ALNUM, 4)),
        ("password", 'ssh-keygen -p, passphrase: "{}"', "four words for " + "a key"),
        ("password hash", "root:{}:19000:0:99999:7:::", "$6$" + some(ALNUM, 12) + "$" + some(ALNUM, 86)),
        ("password hash", 'hash = "{}"', "$2b$12$" + some(ALNUM, 53)),
        ("api key", "api_key: {}", some(HEX, 32)),
        ("api key", "X-Api-Key: {}", some(ALNUM, 40)),
        ("api key", 'apiKey: "{}",', some(URLSAFE, 36)),
        ("api key", "https://api.weather.test/v1?q=Bonn&apikey={}", some(HEX, 32)),
        ("secret access key", "aws_secret_access_key = {}", some(BASE64, 40)),
        ("secret access key", '"SecretAccessKey": "{}"', some(BASE64, 40)),
        ("client secret", "client_secret={}&grant_type=client_credentials", some(ALNUM, 32)),
        ("secret key", "SECRET_KEY = '{}'", some(ALNUM + "!@#%^&*(-_=+)", 50)),
        ("secret key base", "secret_key_base: {}", some(HEX, 128)),
        ("secret", '"secret": "{}"', some(BASE32, 32)),
        ("access token", '"access_token":"{}","expires_in":3600', some(ALNUM, 40)),
        ("token", "Authorization: Token {}", some(HEX, 40)),
        ("access token", "doctl --access-token {} compute", some(ALNUM, 44)),
        ("token", "<token>{}</token>", some(ALNUM, 32)),
        ("token", "SONAR_TOKEN={}", some(HEX, 40)),
        ("account key", "account_key = '{}'", some(BASE64, 86) + "=="),
        ("encryption key", "ENCRYPTION_KEY={}", some(HEX, 64)),
        ("private key", '"private_key": "{}"', some(HEX, 64)),
        ("bearer token", "Authorization: Bearer {}", some(URLSAFE, 40)),
        ("bearer token", "-H 'authorization: bearer {}'", some(HEX, 32)),
        ("basic credentials", "Authorization: Basic {}", base64.b64encode(b"ann:open-sesame-" + some(ALNUM, 6).encode()).decode()),
        ("cookie", "Cookie: {}\nAccept: */*", f"sessionid={some(LOWER, 32)}; csrftoken={some(ALNUM, 32)}"),
        ("cookie", "< Set-Cookie: {}; Path=/; HttpOnly", f"connect.sid=s%3A{some(ALNUM, 32)}"),
        ("cookie", "{'Cookie': '{}'}", f"JSESSIONID={some(UPPER, 32)}"),
        ("private key", "{}", pem("RSA " + "PRIVATE KEY")),
        ("private key", "key.pem:\n{}\nThat is all.", pem("PRIVATE" + " KEY")),
        ("private key", "{}", pem("EC " + "PRIVATE KEY", 3)),
        ("private key", "cat ~/.ssh/id_ed25519\n{}", pem("OPENSSH " + "PRIVATE KEY", 5)),
        ("private key", "gpg --export\n{}", pem("PGP " + "PRIVATE KEY BLOCK", 12)),
        ("private key", '{"type": "service_account", "key": "{}"}', pem("PRIVATE" + " KEY", 4, "\\n")),
        ("card number", "Pay with {} please", card("4", 16)),
        ("card number", "card: {}", grouped(card("5412", 16), (4, 4, 4, 4), " ")),
        ("card number", "card={}, expires 03/29", grouped(card("4", 16), (4, 4, 4, 4), "-")),
        ("card number", "amex {}", card("37", 15)),
        ("card number", "amex {}", grouped(card("34", 15), (4, 6, 5), " ")),
        ("card number", '{"card_number": "{}"}', card("6011", 16)),
        ("card number", "JCB {} was refused", card("3530", 16)),
        ("card number", "Mastercard {}", card("2221", 16)),
    ]  # fmt: skip
    return [Secret(*row) for row in rows]


KNOWN_MISSES = [
    Secret("password", "What is it? — {}", "correct" + "horse", "nothing near it says what it is"),
    Secret("password", "password: {}", "lighthouse", "a bare word after a colon is mostly a type or a label"),
    Secret("password", "The password is {}.", "sunflower", "in a sentence, a word without digits is mostly an adjective"),
    Secret("token", "token {}", some(HEX, 40), "bare hexadecimal digits are mostly a commit"),
    Secret("password", "db:5432:shop:ann:{}", "walnut" + some(string.digits, 2), "a line of .pgpass has no names"),
    Secret("password", "login ann\n{}\nWelcome", "Swan" + some(string.digits, 3), "typed at a prompt that was not kept"),
    Secret("key", "- name: API_KEY\n  value: {}", some(ALNUM, 32), "name and value stand in two fields"),
    Secret("card number", "{} on the card", grouped(card("4", 16), (4, 4, 4, 4), "."), "points as separators"),
]  # fmt: skip

SECRETS = [*_providers(), *_named(), *KNOWN_MISSES]

INNOCENTS = [
    "Run PGPASSWORD=postgres psql -h localhost -U postgres to check the schema.",
    "MYSQL_ROOT_PASSWORD=root is enough for the tests.",
    "Use postgres://postgres:postgres@localhost:5432/test for the test database.",
    # Hashes, ids and encodings.
    "commit 3f786850e387550fdab836ed7e6dc881de23001b",
    "Revert 9fceb02d0ae598e95dc970b74767f19372d61af8 before the release",
    "git checkout 9fceb02",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "docker pull alpine@sha256:c5b1261d6d3e43071626931fc004f70149baeba2c8ec672bd4f27761f8e1ad6b",
    "md5sum: d41d8cd98f00b204e9800998ecf8427e  empty.txt",
    "integrity sha512-oRkLTX6DLEGjPKQFjJd0e7Xv0KLEfOxNYmIyJ4f8ZKvXZBDN1gTq7zHLcCJ6fH0VYn8gDcDJuJlTkOeYlXYKzQ==",
    'etag: W/"33a64df551425fcc55e4d42a148795d9f25f89d4"',
    "request id 123e4567-e89b-12d3-a456-426614174000 failed",
    '{"id": "550e8400-e29b-41d4-a716-446655440000", "name": "order"}',
    "trace 4bf92f3577b34da6a3ce929d0e0e4736, span 00f067aa0ba902b7",
    "pod web-7d9f8b6c5d-x2k4q was evicted",
    "arn:aws:iam::123456789012:role/deploy",
    "The bucket is s3://acme-logs-eu-west-1/2026/11/23/",
    "mongo ObjectId(507f1f77bcf86cd799439011) is not in the list",
    "ULID 01ARZ3NDEKTSV4RRFFQ69G5FAV sorts by time",
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHxgljNBAAO9TXL0Y4OHwAAAABJRU5ErkJggg==",
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
    "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7",
    "base64 of the answer: eyJhIjoxLCJiIjoyfQ==",
    "//# sourceMappingURL=data:application/json;base64,eyJ2ZXJzaW9uIjozLCJzb3VyY2VzIjpbXX0=",
    "-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIEAgAAuTANBgkqhkiG9w0BAQUFADBaMQswCQYDVQQGEwJJ\n-----END CERTIFICATE-----",
    "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEVs/o5+uQbTjL3chynL4wXgUg2R9\n-----END PUBLIC KEY-----",
    "The file must begin with -----BEGIN " + "PRIVATE KEY----- and end with -----END PRIVATE KEY-----.",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ann@laptop",
    "SHA256:uNiVztksCsDhcc0u9e8BgrJXVGDe1QWjHLM9Bk1NdKs ann@laptop (ED25519)",
    "fingerprint 16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48",
    "go.sum: h1:LTKQDEQ4Ti0x3Ur1tFyPh7/t2Zm0Zy9m1sWl0b6cPDQ=",
    "version 1.2.3-beta.4+build.567",
    "AC" + "0123456789abcdef0123456789abcdef is the account's SID, which is no secret",
    # Numbers.
    "timestamp 1732345678901234 µs",
    '{"id": 4929123456789012, "name": "tweet"}',
    "order 4000 1234 5678 9012 was shipped",
    "4111111111111112 fails the check",
    "0.4111111111111111 is the share",
    "ISBN 978-3-16-148410-0",
    "call +49 30 901820 or +1 (555) 010-9999",
    "1234 5678 9012 3456 are just digits",
    "0000 0000 0000 0000",
    "from 192.168.0.1:5432 to 10.0.0.12:6379",
    "pi is 3.14159265358979323846",
    "IBAN checks are modulo 97, card checks modulo 10",
    # Code that names secrets.
    "password = get_password()",
    "password = input('Password: ')",
    "self.password = password",
    "def login(user: str, password: str) -> bool:",
    "connect(user=user, password=password, token=token)",
    "token = os.environ['GITHUB_TOKEN']",
    "token = os.getenv(\"API_TOKEN\", \"\")",
    "const token = " + "process.env.API_TOKEN;",
    "api_key = " + "settings.openai_api_key",
    "api_key=config.get('api_key')",
    "secret = secrets.token_hex(32)",
    "SECRET_KEY = env('DJANGO_SECRET_KEY')",
    "password: ${DB_PASSWORD}",
    "password: ${{ secrets.DB_PASSWORD }}",
    "password = \"{{ vault_db_password }}\"",
    "password: '<your password>'",
    "PASSWORD=changeme",
    "api_key: YOUR_API_KEY",
    "api_key = \"your-api-key-here\"",
    "token: \"xxxxxxxxxxxxxxxx\"",
    "token=********",
    "password: \"********\"",
    "Authorization: Bearer <token>",
    "Authorization: Bearer $TOKEN",
    "Authorization: Bearer ${ACCESS_TOKEN}",
    "headers = {'Authorization': f'Bearer {token}'}",
    "headers={'Authorization': 'Bearer ' + token}",
    "postgres://user:" + "password@localhost/db",
    "postgres://${DB_USER}:${DB_PASS}@db/app",
    "f\"postgresql://{user}:{password}@{host}/{name}\"",
    "http://localhost:8080/@scope/package",
    "see https://acme.test:8443/docs@v2",
    "git@github.com:acme/site.git",
    "ssh://git@git.acme.test:22/site.git",
    "docker run -u 1000:1000 -v $PWD:/w alpine",
    "if token == end_token: break",
    "max_tokens: 2048, token_budget=1000, tokens_used = 312",
    "\"usage\": {\"prompt_tokens\": 812, \"completion_tokens\": 64}",
    "tokenizer.pad_token = tokenizer.eos_token",
    "\"eos_token\": \"<|endoftext|>\", \"pad_token\": \"[PAD]\"",
    "\"next_page_token\": \"CAUQAA8h3kd92jQ71\"",
    "nextPageToken=" + "EAAaBlBUOkNBVQ12x9",
    "\"token_type\": \"bearer\", \"expires_in\": 3600",
    "token_url = 'https://id.acme.test/oauth/token'",
    "secretName: web-tls-secret",
    "secret: " + "db-credentials-2024",
    "secretKeyRef: {name: api, key: token}",
    "kubectl create secret generic db --from-env-file=.env",
    "kubectl get secret web-tls -o yaml",
    "docker build --secret id=npmrc,src=.npmrc .",
    "password_file: /run/secrets/db_password",
    "password: /run/secrets/db_password",
    "credentials: ~/.aws/credentials",
    "GOOGLE_APPLICATION_CREDENTIALS=/etc/gcp/key.json",
    "credentials = service_account.Credentials.from_service_account_file(path)",
    "<input type=\"password\" name=\"password\" placeholder=\"Password\">",
    "<label for=\"password\">Password</label>",
    "\"password\": \"must have at least 8 characters\"",
    "errors = {'password': ['This field is required.']}",
    "password: string;",
    "password VARCHAR(255) NOT NULL",
    "ALTER TABLE users ADD COLUMN password_hash TEXT",
    "hashed_password = bcrypt.hash(password)",
    "passwd: files systemd",
    "cat /etc/passwd | cut -d: -f1",
    "OLDPWD=/home/ann/site",
    "cd $PWD && pwd",
    "ssh_key: ~/.ssh/id_ed25519.pub",
    "key = row['primary_key']",
    "key: value",
    "sort(key=lambda item: item.age)",
    "public_key = load('id.pub')",
    "readFile('/etc/passwd', 'utf8', callback)",
    "METHOD can be \"trust\", \"password\", \"scram-sha-256\"",
    "kpasswd\t464/tcp",
    "4E00 5211 5212 5213 5214 5215 5216 521A",
    "names = ['username', 'password', 'remember_me']",
    "CLIENT_AUTH = '1.3.6.1.5.5.7.3.2'",
    "<assemblyIdentity name=\"CRT\" publicKeyToken=\"1fc8b3b9a1e18e3b\"/>",
    "access_key = aws.access_key_id",
    "sk-learn-pipeline-with-a-very-long-name-of-a-branch",
    "task-force-one-was-renamed-to-risk-assessment-2024",
    "import tokenize, secrets, getpass",
    "csrf_token is missing or incorrect",
    # Sentences.
    "The password is required.",
    "The password is too short; it needs 8 characters.",
    "Reset the password by mail, then log in.",
    "Store the token in the keychain, never in the repository.",
    "The token expired after 3600 seconds.",
    "An API key is needed for more than 100 requests a day.",
    "Bearer authentication comes with RFC 6750.",
    "Bearer tokens are sent in the Authorization header.",
    "The Authorization header was missing.",
    "Cookie: a small text that a site keeps.",
    "The cookie must have SameSite=Lax.",
    "Set-Cookie comes with every answer; delete it in the proxy.",
    "passwords are stored as argon2id hashes",
    "password hashing: PBKDF2 with SHA256",
    "The pass rate is 97.5 % (39 of 40).",
    "pass: 12, fail: 3, skipped: 1",
    "Use the secret manager, not environment variables.",
    "The secret is to build first and upload then.",
    "Keep credentials out of logs.",
    "401 Unauthorized: invalid token",
    "remote: Invalid username or password.",
    "Permission denied (publickey,password).",
    "rotate keys every 90 days",
    "key-value stores, key-signing parties",
    "The access token is in the header X-Auth.",
    "密码不能为空,请重新输入。",
    "パスワードを再設定してください。",
]  # fmt: skip
