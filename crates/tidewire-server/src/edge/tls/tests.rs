use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::*;

fn files(folder: &TempDir) -> TlsConfig {
    TlsConfig { cert: folder.path().join("server.pem"), key: folder.path().join("server.key") }
}

/// A new pair, as PEM.
fn pair() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn write(files: &TlsConfig, cert: &str, key: &str) {
    std::fs::write(&files.cert, cert).unwrap();
    std::fs::write(&files.key, key).unwrap();
}

fn current(tls: &Tls) -> Arc<ServerConfig> {
    tls.pair.read().config.clone()
}

#[test]
fn a_pair_that_cannot_be_used_is_told_and_the_old_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(&folder);
    let ((cert, key), (new_cert, new_key)) = (pair(), pair());
    write(&files, &cert, &key);
    let tls = Tls::read(&files).unwrap();
    let old = current(&tls);
    assert_eq!(tls.look(None), None);
    assert!(Arc::ptr_eq(&current(&tls), &old), "nothing has changed");

    for (cert, key, problem) in [
        (&new_cert, &key, "does not belong"),
        (&"".into(), &key, "holds no certificate"),
        (&cert, &"-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----\n".into(), "tls.key: "),
        (&cert, &cert, "holds no private key"),
    ] {
        write(&files, cert, key);
        let told = tls.look(None).unwrap();
        assert!(told.contains(problem), "{told}");
        assert!(!told.contains("BEGIN"), "what is in the files is not told: {told}");
        assert_eq!(tls.look(Some(told.clone())), Some(told), "the same again");
        assert!(Arc::ptr_eq(&current(&tls), &old));
    }
    std::fs::remove_file(&files.key).unwrap();
    assert!(tls.look(None).unwrap().contains("cannot be read"));
    assert!(Arc::ptr_eq(&current(&tls), &old));

    write(&files, &new_cert, &new_key);
    assert_eq!(tls.look(Some("what was wrong".into())), None);
    assert!(!Arc::ptr_eq(&current(&tls), &old), "the new pair is taken");
}

#[test]
fn neither_what_is_read_nor_an_error_of_it_shows_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(&folder);
    let ((cert, _), (_, other_key)) = (pair(), pair());
    write(&files, &cert, &other_key);
    let error = Tls::read(&files).err().unwrap();
    let secret = other_key.lines().nth(1).unwrap();
    assert!(!error.contains(secret), "{error}");
}
