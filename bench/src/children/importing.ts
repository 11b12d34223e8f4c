/**
 * Imports what a program of one library imports (the arguments), and reports what that took. Our own packages come as
 * they are published: compiled, while the workspace's exports point at TypeScript.
 */
import { registerHooks } from "node:module"

registerHooks({
  resolve: (specifier, context, next) => {
    const resolved = next(specifier, context)
    return specifier.startsWith("@llm/")
      ? { ...resolved, url: resolved.url.replace(/\/src\/(.+)\.ts$/, "/dist/$1.js") }
      : resolved
  }
})

const before = process.cpuUsage()
const begin = performance.now()
for (const specifier of process.argv.slice(2)) await import(specifier)
const elapsed = performance.now() - begin
const { user, system } = process.cpuUsage(before)
process.send?.({ elapsed, spent: (user + system) / 1_000 })
