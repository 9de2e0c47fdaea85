//! Certificates as people make them, and handshakes with them.

use std::fmt::Debug;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints, date_time_ymd,
};
use tokio::io::duplex;

use super::*;
use crate::connection::{AcceptPolicy, ConnectOptions, Connection};
use crate::message::Message;

/// Issued with `openssl x509 -req` by `v1-authority.pem`, with its RSA key: X.509 version 1.
const FIRST_VERSION: &str = include_str!("fixtures/v1.pem");
const FIRST_VERSION_AUTHORITY: &str = include_str!("fixtures/v1-authority.pem");

/// An authority with the given name.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self::with(params)
    }

    fn with(params: CertificateParams) -> Self {
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("signed").pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    fn issue(&self, params: &CertificateParams) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        (certificate.pem(), key.serialize_pem())
    }

    /// What a peer with an ordinary certificate has.
    fn member(&self, name: &str) -> TlsOptions {
        options(&self.pem, self.issue(&params(name)))
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).expect("valid");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn options(authority: &str, (cert, key): (String, String)) -> TlsOptions {
    TlsOptions {
        ca_file: Some(authority.to_owned()),
        cert: Some(cert),
        key: Some(key),
        ..TlsOptions::default()
    }
}

fn self_signed(params: &CertificateParams) -> TlsOptions {
    let key = KeyPair::generate().expect("a key");
    let pem = params.self_signed(&key).expect("signed").pem();
    options(&pem.clone(), (pem, key.serialize_pem()))
}

fn security(options: &TlsOptions) -> Security {
    Security::new(options, true).expect("usable")
}

/// A handshake, and a word in each direction: what the server makes of it, and the client.
async fn meet(server: &Security, client: &Security) -> (Result<(), String>, Result<(), String>) {
    let (near, far) = duplex(1 << 16);
    let text = |error: &dyn Debug| format!("{error:?}");
    let serve = async {
        let tls = server.server().expect("certificates");
        let mut stream = tls.accept(near).await.map_err(|error| text(&error))?;
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let word = stream.read_u8().await.map_err(|error| text(&error))?;
        stream.write_u8(word).await.map_err(|error| text(&error))?;
        stream.flush().await.map_err(|error| text(&error))
    };
    let call = async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let stream = client.connect(None, far).await.expect("certificates");
        let mut stream = stream.map_err(|error| text(&error))?;
        stream.write_u8(7).await.map_err(|error| text(&error))?;
        stream.flush().await.map_err(|error| text(&error))?;
        stream.read_u8().await.map_err(|error| text(&error))?;
        Ok(())
    };
    tokio::join!(serve, call)
}

#[tokio::test]
async fn messages_travel_and_both_sides_know_whom_they_talk_to() {
    let authority = Authority::new("authority");
    let server = authority.member("scheduler");
    let client = authority.member("worker");
    let (near, far) = duplex(1 << 16);
    let serve = async {
        let tls = security(&server);
        let stream = tls.server().expect("certificates").accept(near).await;
        let policy = AcceptPolicy::default();
        let mut connection = Connection::accept(stream.expect("TLS"), &policy, None, None)
            .await
            .expect("accepted");
        let message = connection.read().await.expect("a message");
        connection.send(&message).await.expect("sent");
        let scheme = connection.scheme();
        (connection.certificate().cloned(), scheme, connection)
    };
    let call = async {
        let stream = security(&client).connect(None, far).await;
        let stream = stream.expect("certificates").expect("TLS");
        let mut connection = Connection::establish("test", stream, &ConnectOptions::default())
            .await
            .expect("established");
        let message = Message::from_body(vec![0x93; 200_000]);
        connection.send(&message).await.expect("sent");
        assert_eq!(connection.read().await.expect("the same"), message);
        connection
    };
    let ((certificate, scheme, mut connection), caller) = tokio::join!(serve, call);
    let certificates = pem::certificates(TlsItem::Cert, client.cert.as_deref());
    assert_eq!(certificate, certificates.expect("valid").into_iter().next());
    assert_eq!(scheme, Scheme::Tls);
    assert!(caller.certificate().is_some());

    drop(caller);
    let end = connection.read().await;
    assert!(
        matches!(end, Err(crate::error::ReadError::Closed)),
        "stock closes without a farewell, too: {end:?}"
    );
}

#[tokio::test]
async fn certificates_that_stock_accepts_are_accepted() {
    let authority = Authority::new("authority");
    let ordinary = authority.member("peer");
    // `Security.temporary()`.
    let temporary = self_signed(&params("dask-internal"));
    // `openssl req -x509`.
    let mut own_authority = params("me");
    own_authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own_authority = self_signed(&own_authority);
    let mut beside_others = own_authority.clone();
    beside_others.ca_file = own_authority.ca_file.clone().map(|own| {
        let mut past = params("past");
        past.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        past.not_after = date_time_ymd(2020, 1, 1);
        format!("{}{}{own}", Authority::with(past).pem, authority.pem)
    });
    let mut below = params("authority below");
    below.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let below = options(&authority.pem, authority.issue(&below));
    let first_version = TlsOptions {
        ca_file: Some(FIRST_VERSION_AUTHORITY.to_owned()),
        cert: Some(FIRST_VERSION.to_owned()),
        ..TlsOptions::default()
    };
    for (name, options) in [
        ("ordinary", ordinary),
        ("temporary", temporary),
        ("own authority", own_authority),
        ("own authority beside others", beside_others),
        ("authority below", below),
        ("first version", first_version),
    ] {
        for max_version in [None, Some(TlsVersion::V1_2)] {
            let options = TlsOptions {
                max_version,
                ..options.clone()
            };
            let security = security(&options);
            let (server, client) = meet(&security, &security).await;
            assert_eq!((server, client), (Ok(()), Ok(())), "{name} {max_version:?}");
        }
    }
}

#[tokio::test]
async fn certificates_that_prove_nothing_are_refused_by_either_side() {
    let authority = Authority::new("authority");
    let good = security(&authority.member("peer"));
    let stranger = Authority::new("authority");
    let mut expired = params("peer");
    expired.not_after = date_time_ymd(2020, 1, 1);
    let mut early = params("peer");
    early.not_before = date_time_ymd(3000, 1, 1);
    let mut other_use = params("peer");
    other_use.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    let mut own_authority = params("authority");
    own_authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut expired_authority = own_authority.clone();
    expired_authority.not_after = date_time_ymd(2020, 1, 1);
    // Its key is the stranger's, its issuer has the good authority's name.
    let first_version = (FIRST_VERSION.to_owned(), FIRST_VERSION.to_owned());
    let mut renamed = Authority::new("authority").member("peer");
    renamed.ca_file = Some(authority.pem.clone());
    for (name, bad, reason) in [
        (
            "issued by a namesake",
            options(&authority.pem, stranger.issue(&params("peer"))),
            "BadSignature",
        ),
        ("another namesake", renamed, "BadSignature"),
        (
            "expired",
            options(&authority.pem, authority.issue(&expired)),
            "Expired",
        ),
        (
            "from the future",
            options(&authority.pem, authority.issue(&early)),
            "NotValidYet",
        ),
        (
            "for another use",
            options(&authority.pem, authority.issue(&other_use)),
            "InvalidPurpose",
        ),
        (
            "authority with the same name",
            TlsOptions {
                ca_file: Some(authority.pem.clone()),
                ..self_signed(&own_authority)
            },
            "UnknownIssuer",
        ),
        (
            "expired authority as a peer",
            options(&authority.pem, authority.issue(&expired_authority)),
            "Expired",
        ),
        (
            "first version of somebody else",
            options(&authority.pem, first_version),
            "UnknownIssuer",
        ),
    ] {
        let bad = security(&bad);
        let (server, client) = meet(&good, &bad).await;
        let error = server.expect_err(name);
        assert!(error.contains(reason), "{name}: {error}");
        assert!(client.is_err(), "{name}: the client hears of it");
        let (server, client) = meet(&bad, &good).await;
        let error = client.expect_err(name);
        assert!(error.contains(reason), "{name}: {error}");
        assert!(server.is_err(), "{name}: the server hears of it");
    }
}

/// Authorities that are none, or not any more, and certificates that an authority made for issuing.
#[tokio::test]
async fn what_is_in_the_ca_file_does_not_make_an_authority() {
    let members = Authority::new("members");
    let pinned = Authority::with(params("pinned"));
    let mut usage = params("no issuer");
    usage.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    usage.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let no_issuer = Authority::with(usage);
    let mut past = params("past");
    past.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    past.not_after = date_time_ymd(2020, 1, 1);
    let past = Authority::with(past);
    let mut narrow = params("narrow");
    narrow.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    narrow.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("elsewhere.test".to_owned())],
        excluded_subtrees: Vec::new(),
    });
    let narrow = Authority::with(narrow);

    let peer = params("peer");
    let mut authority = params("authority below");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut signs_only = authority.clone();
    signs_only.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let mut any_use = authority.clone();
    any_use.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
    for (name, issuer, params, reason) in [
        ("a member's issue", &pinned, &peer, "UnknownIssuer"),
        ("a member's authority", &pinned, &authority, "UnknownIssuer"),
        ("not for issuing", &no_issuer, &peer, "UnknownIssuer"),
        ("not for issuing", &no_issuer, &authority, "UnknownIssuer"),
        ("expired authority", &past, &peer, "Expired"),
        ("expired authority", &past, &authority, "Expired"),
        ("only some names", &narrow, &authority, "UnknownIssuer"),
        ("only signs others", &members, &signs_only, "InvalidPurpose"),
        ("for any use", &members, &any_use, "InvalidPurpose"),
    ] {
        // All trust the same authorities; only the certificates differ.
        let trusted = format!("{}{}", members.pem, issuer.pem);
        let good = security(&options(&trusted, members.issue(&peer)));
        let bad = security(&options(&trusted, issuer.issue(params)));
        let (server, client) = meet(&good, &bad).await;
        let error = server.expect_err(name);
        assert!(error.contains(reason), "{name}: {error}");
        assert!(client.is_err(), "{name}: the client hears of it");
        let (_, client) = meet(&bad, &good).await;
        let error = client.expect_err(name);
        assert!(error.contains(reason), "{name}: {error}");
    }
}

#[tokio::test]
async fn callers_without_certificate_are_refused() {
    let authority = Authority::new("authority");
    let server = security(&authority.member("scheduler"));
    let mut anonymous = security(&authority.member("worker"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificates = pem::certificates(TlsItem::CaFile, Some(&authority.pem)).expect("valid");
    let verifier = PeerVerifier::new(certificates, &provider).expect("usable");
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    anonymous.tls.as_mut().expect("TLS").client = Arc::new(client);
    let (served, called) = meet(&server, &anonymous).await;
    let error = served.expect_err("refused");
    assert!(error.contains("NoCertificatesPresented"), "{error}");
    let error = called.expect_err("refused");
    assert!(error.contains("CertificateRequired"), "{error}");
}

#[tokio::test]
async fn versions_that_do_not_meet_do_not_talk() {
    let authority = Authority::new("authority");
    let newest = TlsOptions {
        min_version: TlsVersion::V1_3,
        ..authority.member("a")
    };
    let older = TlsOptions {
        max_version: Some(TlsVersion::V1_2),
        ..authority.member("b")
    };
    let (served, called) = meet(&security(&newest), &security(&older)).await;
    assert!(served.is_err() && called.is_err(), "{served:?} {called:?}");
    let none = TlsOptions {
        max_version: Some(TlsVersion::V1_2),
        ..newest
    };
    assert!(matches!(
        Security::new(&none, true),
        Err(TlsError::NoVersion)
    ));
}

#[test]
fn subjects_have_short_names() {
    let certificates = pem::certificates(TlsItem::Cert, Some(FIRST_VERSION)).expect("valid");
    let subject = subject(&certificates[0]).expect("a subject");
    let expected = [("O", "Dask"), ("CN", "first-version")];
    assert_eq!(subject, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
}

#[test]
fn files_are_read_and_mistakes_are_named() {
    let authority = Authority::new("authority");
    let (cert, key) = authority.issue(&params("peer"));
    let (_, other_key) = authority.issue(&params("other"));
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_string_lossy().into_owned()
    };
    let good = TlsOptions {
        ca_file: Some(file("ca", &authority.pem)),
        cert: Some(file("both", &format!("{key}{cert}"))),
        ..TlsOptions::default()
    };
    let with = |change: &dyn Fn(&mut TlsOptions)| {
        let mut options = good.clone();
        change(&mut options);
        Security::new(&options, false).map(|security| security.server().is_some())
    };
    assert!(matches!(with(&|_| {}), Ok(true)), "key beside certificate");
    let own = |o: &mut TlsOptions| o.key = Some(file("key", &key));
    assert!(matches!(with(&own), Ok(true)), "key of its own");
    assert!(
        matches!(with(&|o| o.ca_file = None), Ok(false)),
        "as stock: no TLS without authorities"
    );
    assert!(matches!(with(&|o| o.cert = Some(String::new())), Ok(false)));

    let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let old_encrypted = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n";
    type Change<'a> = &'a dyn Fn(&mut TlsOptions);
    let table: &[(Change, &str)] = &[
        (
            &|o| o.ca_file = Some("/nowhere".into()),
            "cannot read the ca-file of TLS, /nowhere",
        ),
        (
            &|o| o.key = Some("/nowhere".into()),
            "cannot read the key of TLS, /nowhere",
        ),
        (&|o| o.cert = Some(file("empty", "")), "the cert of TLS"),
        (
            &|o| o.cert = Some(file("cert", &cert)),
            "it holds no private key",
        ),
        (
            &|o| o.ca_file = Some("no\nPEM".into()),
            "the ca-file of TLS (inline PEM text)",
        ),
        (&|o| o.key = Some(encrypted.clone()), "openssl pkey"),
        (&|o| o.key = Some(old_encrypted.into()), "openssl pkey"),
        (
            &|o| o.key = Some(other_key.clone()),
            "does not belong to the certificate",
        ),
        (
            &|o| o.ciphers = Some("RC4-MD5".into()),
            "no cipher of 'RC4-MD5'",
        ),
    ];
    for (change, expected) in table {
        let error = with(change).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains('\n'), "one line: {error}");
    }
}
