// Files and whole folders out of a drop or a file chooser, with the names they are shown by ("folder/report.pdf").

export interface Dropped {
  file: File
  name: string
  /** Found in a folder, and of no kind that Quinze reads: shown, not sent. */
  skipped?: boolean
}

const IGNORED = new Set(['.git', 'node_modules', '__pycache__', '.DS_Store', 'Thumbs.db', 'desktop.ini'])
const ignored = (name: string) => name.startsWith('.') || name.startsWith('~$') || IGNORED.has(name)

export function suffix(name: string): string {
  const last = name.slice(name.lastIndexOf('/') + 1)
  const dot = last.lastIndexOf('.')
  return dot > 0 ? last.slice(dot).toLowerCase() : ''
}

function marked(dropped: Dropped, formats: Record<string, string>): Dropped {
  const known = Object.keys(formats).length === 0 || suffix(dropped.name) in formats
  return dropped.name.includes('/') && !known ? { ...dropped, skipped: true } : dropped
}

export function fromChooser(files: FileList, formats: Record<string, string>): Dropped[] {
  return [...files]
    .map((file) => ({ file, name: file.webkitRelativePath || file.name }))
    .filter(({ name }) => !name.split('/').some(ignored))
    .map((dropped) => marked(dropped, formats))
}

export async function fromDrop(transfer: DataTransfer, formats: Record<string, string>): Promise<Dropped[]> {
  // Entries must be taken before the first await: the transfer is emptied when the event is over.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter((entry) => entry != null)
  if (!entries.length) return fromChooser(transfer.files, formats)
  const found: Dropped[] = []
  for (const entry of entries) await walk(entry, '', found)
  return found.map((dropped) => marked(dropped, formats))
}

async function walk(entry: FileSystemEntry, above: string, found: Dropped[]): Promise<void> {
  if (ignored(entry.name)) return
  const name = above + entry.name
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject))
    found.push({ file, name })
    return
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader()
  for (;;) {
    // A reader hands out a folder in portions, until one is empty.
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject))
    if (!some.length) return
    for (const child of some) await walk(child, `${name}/`, found)
  }
}
