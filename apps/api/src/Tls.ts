/**
 * The gateway's certificate: read at the start, and again whenever a renewed one lies in its place.
 */
import { createPrivateKey, X509Certificate } from "node:crypto"
import type * as Https from "node:https"
import { createSecureContext } from "node:tls"
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import type { Secret } from "./ConfigFile.ts"
import type { Certificate } from "./DrainingServer.ts"
import * as SecretSource from "./SecretSource.ts"

/** `server.tls`, `admin.tls`: files in PEM. */
export interface Settings {
  /** The certificate, and those between it and its root. */
  readonly cert: string
  readonly key: string
  readonly passphrase?: Secret | undefined
}

/** The certificate cannot be used. */
export class CertificateInvalid extends Data.TaggedError("CertificateInvalid")<{
  /** Such as `server.tls.cert`. */
  readonly field: string
  readonly file: string
  readonly detail: string
}> {
  override get message(): string {
    return `${this.field}: ${this.file} ${this.detail}`
  }
}

/** What a server needs. */
export interface Tls {
  readonly certificate: Certificate
  /** Renewed ones; what cannot be used is told of in the log, and the one before stays. */
  readonly renewals: Stream.Stream<Certificate>
}

const attempt = <A>(make: () => A, invalid: CertificateInvalid): Effect.Effect<A, CertificateInvalid> =>
  Effect.try({ try: make, catch: () => invalid })

/** Where the files are named. */
export type Section = "server.tls" | "admin.tls"

const read = Effect.fnUntraced(function* (
  { cert: certFile, key: keyFile, passphrase }: Settings,
  section: Section
) {
  const files = yield* FileSystem.FileSystem
  const wrong = (field: "cert" | "key", detail: string) =>
    new CertificateInvalid({
      field: `${section}.${field}`,
      file: field === "cert" ? certFile : keyFile,
      detail
    })
  const text = (field: "cert" | "key") =>
    Effect.mapError(files.readFileString(field === "cert" ? certFile : keyFile), () =>
      wrong(field, "cannot be read")
    )
  const cert = yield* text("cert")
  const key = yield* text("key")
  const secret =
    passphrase === undefined
      ? undefined
      : Redacted.value(yield* SecretSource.read(`${section}.passphrase`, passphrase))
  const known = yield* attempt(() => new X509Certificate(cert), wrong("cert", "holds no certificate in PEM"))
  const own = yield* attempt(
    () => createPrivateKey({ key, ...(secret === undefined ? {} : { passphrase: secret }) }),
    wrong("key", "holds no private key in PEM, or another passphrase opens it")
  )
  if (!known.checkPrivateKey(own)) return yield* wrong("key", "is not the key of the certificate")
  if (known.validToDate.getTime() <= (yield* Clock.currentTimeMillis))
    yield* Effect.logWarning(`${section}.cert: ${certFile} has expired: callers will refuse it`)
  const certificate: Certificate = { cert, key, passphrase: secret }
  // All that stands behind the first certificate as well: a server throws where that is cut short.
  yield* attempt(
    () => createSecureContext({ cert, key, ...(secret === undefined ? {} : { passphrase: secret }) }),
    wrong("cert", "holds a certificate that cannot be read, or one that is too weak")
  )
  return certificate
})

/** Reads the certificate; fails with `CertificateInvalid` or `SecretMissing`, which name the setting. */
export const load = Effect.fnUntraced(function* (settings: Settings, section: Section = "server.tls") {
  const context = yield* Effect.context<FileSystem.FileSystem>()
  const certificate = yield* read(settings, section)
  let known = certificate.cert + certificate.key
  let refused: string | undefined
  const renewed = read(settings, section).pipe(
    Effect.map((found): Certificate | undefined => {
      const text = found.cert + found.key
      if (text === known) return undefined
      known = text
      refused = undefined
      return found
    }),
    Effect.tap((found) =>
      found === undefined
        ? Effect.void
        : Effect.logInfo(`${section}: ${settings.cert} is in force from now on`)
    ),
    // While a certificate is replaced its key is another one's: what stays wrong is told once.
    Effect.catch((error) =>
      Effect.suspend(() => {
        const told = refused === error.message
        refused = error.message
        return Effect.as(
          told ? Effect.void : Effect.logError(`${error.message}\nThe certificate before it stays in force.`),
          undefined
        )
      })
    ),
    Effect.provideContext(context)
  )
  const tls: Tls = {
    certificate,
    // By content, as the configuration is.
    renewals: Stream.fromSchedule(Schedule.spaced("1 second")).pipe(
      Stream.mapEffect(() => renewed),
      Stream.filter((found) => found !== undefined)
    )
  }
  return tls
})

/** Has a server take renewed certificates for as long as the layer lives. */
export const follow = (server: Https.Server, { renewals }: Tls): Layer.Layer<never> =>
  Layer.effectDiscard(
    Effect.forkScoped(
      Stream.runForEach(renewals, (certificate) => Effect.sync(() => server.setSecureContext(certificate)))
    )
  )
