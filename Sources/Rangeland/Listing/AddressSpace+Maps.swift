// SPDX-License-Identifier: Apache-2.0
//
// The mappings as lines of text, in the format of /proc/pid/maps.
//
// Source: Linux fs/proc/task_mmu.c `show_map_vma`.

extension AddressSpace {
  /// The mappings of a range, one line each, as `/proc/pid/maps` shows them.
  ///
  /// Takes no lock and makes no writer wait: see `mappings(in:)` for what is consistent. Device and inode are 0,
  /// but for files, and shared memory: device 00:01 and a number that no other object has at that time. A substituted
  /// file mapping has the number by which it was made, and no path.
  public func maps(in range: AddressRange = .wholeSpace) -> String {
    var text = ""
    let heap = heapRange
    for mapping in mappings(in: range) { mapping.writeMapsLine(to: &text, heap: heap) }
    return text
  }
}

extension AddressSpace {
  /// From the heap's start to the break; `nil` when the space has no heap or an empty one.
  var heapRange: AddressRange? {
    guard let start = heapStart, let end = programBreak, start < end else { return nil }
    return AddressRange(start: start, end: end)
  }
}

extension MappingInfo {
  /// Appends the mapping's line, with its end of line.
  func writeMapsLine(to text: inout String, heap: AddressRange?) {
    let start = text.utf8.count
    text += "\(Self.hex(range.start))-\(Self.hex(range.end)) "
    text += protection.contains(.read) ? "r" : "-"
    text += protection.contains(.write) ? "w" : "-"
    text += protection.contains(.execute) ? "x" : "-"
    text += sharing == .shared ? "s" : "p"
    let offset = isAnonymous ? 0 : pageOffset << 12
    text += " \(Self.hex(offset)) \(listedDevice) "
    text += "\(sharedObject ?? file ?? 0) "
    if let name = listedName ?? (heap.map(range.overlaps) == true ? "[heap]" : nil) {
      let width = text.utf8.count - start
      text += String(repeating: " ", count: max(0, 73 - width))
      // A name that would look like two lines is told as Linux tells it (`seq_path`).
      for character in name.unicodeScalars {
        if character == "\n" { text += "\\012" } else { text.unicodeScalars.append(character) }
      }
    }
    text += "\n"
  }

  /// Private memory without file or owner.
  private var isAnonymous: Bool { sharing == .private && file == nil && name == nil }

  private var listedName: String? {
    name ?? path ?? (sharedObject == nil ? nil : "/dev/zero (deleted)")
  }

  /// Major and minor number (Linux `new_decode_dev` of a `dev_t`).
  private var listedDevice: String {
    if sharedObject != nil { return "00:01" }
    func pair(_ value: UInt64) -> String { (value < 16 ? "0" : "") + String(value, radix: 16) }
    let major = device >> 8 & 0xfff | device >> 32 & ~0xfff
    let minor = device & 0xff | device >> 12 & ~0xff
    return pair(major) + ":" + pair(minor)
  }

  private static func hex(_ value: UInt64) -> String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: max(0, 8 - digits.count)) + digits
  }
}
