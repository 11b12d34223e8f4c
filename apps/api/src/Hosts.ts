/**
 * By which names a gateway may be called by those who have no key.
 *
 * **Details**
 *
 * Whoever owns a name can let it point here once a page of it is loaded (DNS rebinding). To the browser that page is then
 * the gateway's own: it reads what answers without a key, and tells no origin. So a name counts only where nobody else can
 * own it: an address, `localhost`, one without a dot, one of a zone that is private by definition, or one that
 * `server.hosts` names. Who has a key may come by any name, since such a page has none; behind TLS of our own the browser
 * itself finds that the certificate is another's.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Access from "./Access.ts"

export interface Hosts {
  /** @param header as a request says it: with a port, where it is not the usual one */
  readonly allows: (header: string | undefined) => boolean
}

const address = /^(?:\d{1,3}(?:\.\d{1,3}){3}|\[[\da-f:.]+\])$/u

/** Nobody can buy a name in these, or without a dot. */
const isPrivate = (name: string): boolean =>
  !name.includes(".") || /\.(?:localhost|local|internal|home\.arpa|test)$/u.test(name)

/** How many headers are remembered: a name is judged once. */
const most = 1000

/**
 * @param named such as `gateway.example.com`; `.example.com` for that name and all below it, `*` for any
 */
export const make = (named: ReadonlyArray<string>): Hosts => {
  const names = named.map((name) => name.toLowerCase())
  const judge = (header: string): boolean => {
    const name = header
      .toLowerCase()
      .replace(/:\d+$/u, "")
      .replace(/(?<=.)\.$/u, "")
    if (address.test(name) || isPrivate(name)) return true
    return names.some((one) =>
      one.startsWith(".") ? name === one.slice(1) || name.endsWith(one) : one === "*" || one === name
    )
  }
  const judged = new Map<string, boolean>()
  return {
    allows: (header) => {
      // No browser leaves it out.
      if (header === undefined || header === "") return true
      let verdict = judged.get(header)
      if (verdict === undefined) {
        if (judged.size >= most) judged.clear()
        judged.set(header, (verdict = judge(header)))
      }
      return verdict
    }
  }
}

const denied = (host: string | undefined): Access.Denied =>
  new Access.Denied({
    status: 403,
    code: "host_not_allowed",
    detail: `Without a key this gateway may not be called as ${(host ?? "").slice(0, 200)}.`,
    hint: "Come with a key or by an address, or name the host in server.hosts."
  })

/** Asks who calls as before; who has no key is refused under a name that is not allowed. */
export const layer = (hosts: Hosts): Layer.Layer<never> =>
  Layer.effectContext(
    Effect.map(Effect.serviceOption(Access.Access), (found) => {
      if (Option.isNone(found)) return Context.empty()
      const access = found.value
      const guarded = Access.Access.of({
        ...access,
        known: (headers, connection) => {
          const caller = access.known(headers, connection)
          return caller?.keyId === undefined && !hosts.allows(headers["host"]) ? undefined : caller
        },
        authenticate: (headers, from) => {
          const identified = access.authenticate(headers, from)
          return hosts.allows(headers["host"])
            ? identified
            : Effect.filterOrFail(
                identified,
                ({ keyId }) => keyId !== undefined,
                () => denied(headers["host"])
              )
        }
      })
      return Context.make(Access.Access, guarded)
    })
  )
