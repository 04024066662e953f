// SPDX-License-Identifier: Apache-2.0
//
// What a subject shows of itself, taken while the kernel's side is asked for the same.

/// Mappings, sizes, residency and contents of a subject's windows.
struct SubjectState {
  struct Window {
    var mappings: [VerifyMapping]
    /// Pages that are present, ascending.
    var present: [UInt64]
    /// Of each of those; `nil` = it may not be read.
    var hashes: [UInt64?]
  }

  var windows: [Window]
  var sizes: VerifySizes
  /// Pages of files on disks that are present, copies aside.
  var presentFilePages: Int

  init(_ subject: any VerifySubject, _ windows: [KernelProcess.AddressPair]) {
    // Sizes before contents: nothing that is read here changes them.
    sizes = subject.sizes()
    presentFilePages = windows.reduce(0) { $0 + subject.presentFilePages($1.start, $1.end) }
    self.windows = windows.map { window in
      let mappings = subject.mappings(window.start, window.end)
      let present = subject.presentPages(window.start, window.end)
      var mapping = mappings.makeIterator()
      var current = mapping.next()
      let hashes = present.map { page -> UInt64? in
        while let end = current?.end, end <= page { current = mapping.next() }
        // Without rights it is not read.
        guard let rights = current?.protection, rights != 0 else { return nil }
        return subject.hash(page)
      }
      return Window(mappings: mappings, present: present, hashes: hashes)
    }
  }
}
