// Where we are, as the address bar says it. Paths and queries are the only state that survives a reload.

function read() {
  return { path: location.pathname, query: new URLSearchParams(location.search) }
}

let here = $state.raw(read())

window.addEventListener('popstate', () => (here = read()))

/** Reads as: `route.parts` of /knowledge/Notes/documents/3 is ["knowledge", "Notes", "documents", "3"]. */
export const route = {
  get path() {
    return here.path
  },
  get query() {
    return here.query
  },
  get parts() {
    return here.path.split('/').filter(Boolean).map(decode)
  },
}

export function go(to: string, { replace = false } = {}) {
  if (to === location.pathname + location.search) return
  history[replace ? 'replaceState' : 'pushState'](null, '', to)
  here = read()
}

/** The same path with some of the query changed; null takes a key out. */
export function goQuery(changes: Record<string, string | null>, options = { replace: false }) {
  const query = new URLSearchParams(location.search)
  for (const [key, value] of Object.entries(changes)) {
    if (value === null) query.delete(key)
    else query.set(key, value)
  }
  const text = query.toString()
  go(location.pathname + (text ? `?${text}` : ''), options)
}

export const paths = {
  knowledge: (name?: string) => (name === undefined ? '/knowledge' : `/knowledge/${encodeURIComponent(name)}`),
  document: (name: string, id: number, block?: number) =>
    `/knowledge/${encodeURIComponent(name)}/documents/${id}${block === undefined ? '' : `?block=${block}`}`,
  training: (name?: string) => (name === undefined ? '/training' : `/training/${encodeURIComponent(name)}`),
  chat: (id?: string) => (id ? `/chat/${id}` : '/chat'),
}

/** Lets plain links inside the page change the route without a reload. */
export function followLinks(event: MouseEvent) {
  if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return
  const anchor = (event.target as Element | null)?.closest?.('a')
  if (!anchor || anchor.target || anchor.hasAttribute('download') || anchor.origin !== location.origin) return
  if (anchor.pathname.startsWith('/api/') || anchor.pathname.startsWith('/v1/')) return
  event.preventDefault()
  go(anchor.pathname + anchor.search)
}

function decode(part: string) {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}
