/** What whoever runs our gateway does over its admin API before a measurement. */
import * as Schema from "effect/Schema"

export const token = "admin-token-of-the-measurements"

const decodeSecret = Schema.decodeUnknownSync(
  Schema.fromJsonString(Schema.Struct({ id: Schema.String, secret: Schema.String }))
)

const post = async (port: number, path: string, body: object) => {
  const answer = await fetch(`http://127.0.0.1:${port}${path}`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify(body)
  })
  const text = await answer.text()
  if (answer.status !== 201) throw new Error(`POST ${path} was answered with ${answer.status}: ${text}`)
  return text
}

/** Makes a team with a key whose limits are looked at with every call and never reached; gives its secret. */
export const makeKey = async (port: number) => {
  await post(port, "/admin/teams", { id: "bench", name: "Bench" })
  return decodeSecret(
    await post(port, "/admin/keys", {
      team: "bench",
      label: "bench",
      requestsPerMinute: 1e9,
      tokensPerMinute: 1e12,
      concurrency: 100_000
    })
  ).secret
}

/** The text that an admin route shows. */
export const look = async (port: number, path: string) => {
  const answer = await fetch(`http://127.0.0.1:${port}${path}`, {
    headers: { authorization: `Bearer ${token}` }
  })
  const text = await answer.text()
  if (!answer.ok) throw new Error(`GET ${path} was answered with ${answer.status}: ${text}`)
  return text
}
