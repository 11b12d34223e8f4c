/**
 * A certificate that nobody trusts: made at the start, signed by itself, for `localhost` and 127.0.0.1.
 *
 * Node has no call that makes one, so the few DER structures of RFC 5280 are written here.
 */
import { createSign, generateKeyPairSync, randomBytes } from "node:crypto"

const der = (tag: number, ...contents: ReadonlyArray<Buffer>): Buffer => {
  const content = Buffer.concat(contents)
  const { length } = content
  const size = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff]
  return Buffer.concat([Buffer.from([tag, ...size]), content])
}

const sequence = (...contents: ReadonlyArray<Buffer>): Buffer => der(0x30, ...contents)
const identifier = (hex: string): Buffer => der(0x06, Buffer.from(hex, "hex"))
const bits = (bytes: Buffer): Buffer => der(0x03, Buffer.of(0), bytes)
const time = (text: string): Buffer => der(0x18, Buffer.from(text))

/** ecdsa-with-SHA256. */
const algorithm = sequence(identifier("2a8648ce3d040302"))
/** CN=simulator. */
const name = sequence(der(0x31, sequence(identifier("550403"), der(0x0c, Buffer.from("simulator")))))
/** subjectAltName. */
const alternatives = sequence(
  identifier("551d11"),
  der(0x04, sequence(der(0x82, Buffer.from("localhost")), der(0x87, Buffer.of(127, 0, 0, 1))))
)

/** Both as PEM. */
export const make = (): { readonly key: string; readonly cert: string } => {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "prime256v1" })
  const serial = randomBytes(8)
  // Positive, and without a leading zero.
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40
  const unsigned = sequence(
    der(0xa0, der(0x02, Buffer.of(2))),
    der(0x02, serial),
    algorithm,
    name,
    sequence(time("20200101000000Z"), time("20991231235959Z")),
    name,
    publicKey.export({ type: "spki", format: "der" }),
    der(0xa3, sequence(alternatives))
  )
  const signature = createSign("sha256").update(unsigned).sign(privateKey)
  const base64 = sequence(unsigned, algorithm, bits(signature)).toString("base64")
  const lines = base64.match(/.{1,64}/g) ?? []
  return {
    key: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
    cert: `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`
  }
}
