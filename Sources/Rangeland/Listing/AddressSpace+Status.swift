// SPDX-License-Identifier: Apache-2.0
//
// The sizes of a space, in the format of the Vm lines of /proc/pid/status.
//
// Source: Linux fs/proc/task_mmu.c `task_mem`.

extension AddressSpace {
  /// The sizes as `/proc/pid/status` shows them, in kB. Sums of the threads' counters: exact while no operation
  /// runs. `VmPeak`, which would cost each operation a look at all threads' counters, is not kept. Takes no
  /// lock.
  public func status() -> String {
    let usage = usage
    func line(_ name: String, _ pages: Int) -> String {
      let value = String(pages * 4)
      return name + ":\t" + String(repeating: " ", count: max(0, 8 - value.utf8.count)) + value
        + " kB\n"
    }
    let resident =
      usage.residentAnonymousPages + usage.residentFilePages + usage.residentSharedPages
    return line("VmSize", usage.virtualPages) + line("VmLck", usage.lockedPages)
      + line("VmHWM", max(usage.peakResidentPages, resident)) + line("VmRSS", resident)
      + line("RssAnon", usage.residentAnonymousPages) + line("RssFile", usage.residentFilePages)
      + line("RssShmem", usage.residentSharedPages) + line("VmData", usage.dataPages)
      + line("VmStk", usage.stackPages) + line("VmExe", usage.executablePages)
  }
}
